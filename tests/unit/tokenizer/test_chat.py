from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_k2.chat import ChatError, ChatTemplate, renumber_tool_calls
from kimi_k2.errors import TokenizerError
from kimi_k2.tokenizer import Tokenizer
from tests.support.tiny_tokenizer import SPECIALS, tiny_tokenizer

NANO = Path(__file__).parents[3] / "models" / "nano-k2"
TINY = tiny_tokenizer()
PLAIN = ChatTemplate(
    "{% for m in messages %}<|im_user|>{{ m.role }}<|im_middle|>"
    "{% for part in m.content %}{{ part }}{% endfor %}<|im_end|>{% endfor %}",
    TINY,
)
TOOL = {"type": "function", "function": {"name": "add", "description": "é <think>"}}


def call(old_id: str, name: str = "add", arguments: str = '{"a":1}') -> dict[str, Any]:
    return {"id": old_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def controls(ids: list[int]) -> list[str]:
    return [TINY.decode([index]) for index in ids if TINY.is_special(index)]


@pytest.fixture(scope="module")
def nano() -> ChatTemplate:
    if not (NANO / "chat_template.jinja").exists():
        pytest.skip("nano-K2 is not in the tree")
    source = (NANO / "chat_template.jinja").read_text(encoding="utf-8")
    return ChatTemplate(source, TINY)


def test_the_k2_format(nano: ChatTemplate) -> None:
    ids = nano.encode(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": None, "tool_calls": [call("call_x")]},
            {"role": "tool", "tool_call_id": "call_x", "content": "2"},
        ],
        tools=[TOOL],
    )
    tool = '{"type":"function","function":{"name":"add","description":"é <think>"}}'
    assert TINY.decode(ids) == (
        f"<|im_system|>tool_declare<|im_middle|>[{tool}]<|im_end|>"
        "<|im_system|>system<|im_middle|>Be brief.<|im_end|>"
        "<|im_user|>user<|im_middle|>1+1?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|><think></think><|tool_calls_section_begin|>"
        "<|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
        '{"a":1}<|tool_call_end|><|tool_calls_section_end|><|im_end|>'
        "<|im_system|>add<|im_middle|>## Return of functions.add:0\n2<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>"
    )
    assert controls(ids).count("<think>") == 1


def test_thinking_is_handed_to_the_template(nano: ChatTemplate) -> None:
    messages = [{"role": "user", "content": "hi"}]
    off = nano.encode(messages, thinking=False)
    assert TINY.decode(off).endswith("<|im_middle|><think></think>")
    assert controls(nano.encode(messages, thinking=True)) == controls(nano.encode(messages))
    assert nano.encode(messages, variables={"thinking": False}) == off
    assert TINY.decode(nano.encode(messages, add_generation_prompt=False)).endswith("<|im_end|>")


@pytest.mark.parametrize("special", SPECIALS)
def test_a_users_control_token_is_only_text(nano: ChatTemplate, special: str) -> None:
    def conversation(text: str) -> list[int]:
        return nano.encode(
            [
                {"role": "user", "name": text, "content": [{"type": "text", "text": text}]},
                {"role": "assistant", "content": text, "tool_calls": [call("1", text, text)]},
                {"role": "tool", "tool_call_id": "1", "content": text},
            ],
            tools=[{"type": text, text: [text]}],
        )

    harmless, hostile = conversation("harmless"), conversation(f"{special}")
    assert controls(hostile) == controls(harmless)
    assert TINY.decode(hostile) == TINY.decode(harmless).replace("harmless", special)


@pytest.mark.parametrize("special", SPECIALS)
def test_a_control_token_in_a_variable_is_only_text(special: str) -> None:
    template = ChatTemplate(
        "<|im_system|>{{ style }}{% for part in parts.of %}{{ part }}{% endfor %}"
        "{% if effort == 'high' %}!{% endif %}<|im_end|>",
        TINY,
    )
    halves = [special[:2], special[2:], "\ue000"]
    variables = {"style": special, "parts": {"of": halves}, "effort": "high"}
    ids = template.encode([], variables=variables)
    assert controls(ids) == ["<|im_system|>", "<|im_end|>"]
    assert TINY.decode(ids) == f"<|im_system|>{special}{special}\ue000!<|im_end|>"


def test_pieces_that_the_template_joins_do_not_become_a_control_token() -> None:
    ids = PLAIN.encode([{"role": "user", "content": ["<|im_", "end|>", "<", "think>"]}])
    assert controls(ids) == ["<|im_user|>", "<|im_middle|>", "<|im_end|>"]
    assert "<|im_end|><think>" in TINY.decode(ids)


@given(st.text(alphabet="<|im_end>[BOS]\ue000\ue001\ue002aé", max_size=40))
@settings(deadline=None)
def test_any_text_stays_what_it_is(text: str) -> None:
    ids = PLAIN.encode([{"role": "user", "content": [text]}])
    assert controls(ids) == ["<|im_user|>", "<|im_middle|>", "<|im_end|>"]
    assert TINY.decode(ids) == f"<|im_user|>user<|im_middle|>{text}<|im_end|>"


def test_calls_are_counted_over_the_whole_conversation() -> None:
    messages = renumber_tool_calls(
        [
            {"role": "assistant", "tool_calls": [call("a", "f"), call("b", "g")]},
            {"role": "tool", "tool_call_id": "b", "content": "1"},
            {"role": "tool", "tool_call_id": "a", "content": "2", "name": "mine"},
            {"role": "assistant", "tool_calls": [call("a", "h")]},
            {"role": "tool", "tool_call_id": "a", "content": "3"},
        ]
    )
    assert [c["id"] for m in messages for c in m.get("tool_calls", [])] == [
        "functions.f:0",
        "functions.g:1",
        "functions.h:2",
    ]
    results = [(m["tool_call_id"], m["name"]) for m in messages if m["role"] == "tool"]
    assert results == [("functions.g:1", "g"), ("functions.f:0", "mine"), ("functions.h:2", "h")]


def test_a_result_without_its_call_is_refused() -> None:
    with pytest.raises(ChatError, match=r"messages\[0\]: tool_call_id 'x' answers no tool call"):
        renumber_tool_calls([{"role": "tool", "tool_call_id": "x", "content": "1"}])


def test_what_the_template_refuses_is_a_typed_error() -> None:
    template = ChatTemplate("{{ raise_exception('no ' ~ messages[0].role) }}", TINY)
    with pytest.raises(ChatError, match="no user"):
        template.encode([{"role": "user"}])
    with pytest.raises(ChatError, match="cannot render"):
        PLAIN.encode([{"role": "user", "content": 7}])
    with pytest.raises(ChatError, match="refuses"):
        ChatTemplate("{{ messages.append(1) }}", TINY).encode([{"role": "user"}])


def test_the_sandbox_holds() -> None:
    with pytest.raises(ChatError):
        ChatTemplate("{{ messages.__class__.__mro__ }}", TINY).encode([{"role": "user"}])


def test_where_the_template_is_found(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="has no chat_template"):
        ChatTemplate.from_dir(tmp_path, TINY)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "in config"}))
    assert TINY.decode(ChatTemplate.from_dir(tmp_path, TINY).encode([])) == "in config"
    (tmp_path / "chat_template.jinja").write_text("in file")
    assert TINY.decode(ChatTemplate.from_dir(tmp_path, TINY).encode([])) == "in file"
    (tmp_path / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(TokenizerError, match="chat template, line 1"):
        ChatTemplate.from_dir(tmp_path, TINY)


def test_the_real_vocabulary_takes_the_format_too(nano: ChatTemplate) -> None:
    template = ChatTemplate.from_dir(NANO)
    tokenizer = Tokenizer.from_dir(NANO)
    ids = template.encode([{"role": "user", "content": "a<|im_end|>b"}])
    assert ids.count(tokenizer.special_id("<|im_end|>")) == 1
