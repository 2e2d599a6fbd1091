"""Conversations and their text: a Python twin of `chat_template.jinja` that also says which tokens are learnt.

`check_template` proves the twin equal to the template; the twin is there because it is fast and knows the spans.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2.sandbox

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """OpenAI-style messages that end with an assistant turn. `thinking` false: rendered as the server would with
    thinking switched off, so nothing up to the empty `</think>` is learnt."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool = True
    kind: str = ""


def compact(value: Any) -> str:
    """JSON as the template's `tojson` writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def calls_text(message: Message) -> str:
    """The tool calls of one assistant turn, or nothing."""
    if not message.get("tool_calls"):
        return ""
    calls = "".join(
        f"<|tool_call_begin|>{call['id']}<|tool_call_argument_begin|>{call['function']['arguments']}<|tool_call_end|>"
        for call in message["tool_calls"]
    )
    return f"<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>"


def segments(conversation: Conversation) -> list[tuple[str, bool]]:
    """(text, learnt) pieces in order. Turns whose reasoning history hides, or whose message says `forgotten` (the client
    left the reasoning out), are shown, not learnt."""
    messages, out = conversation.messages, []
    answers = [i for i, m in enumerate(messages[:-1]) if m["role"] == "assistant" and not m.get("tool_calls")]
    last_answer = answers[-1] if answers else -1
    if conversation.tools:
        out.append((f"<|im_system|>tool_declare<|im_middle|>{compact(conversation.tools)}<|im_end|>", False))
    for index, message in enumerate(messages):
        role, content = message["role"], message.get("content") or ""
        if role == "user":
            out.append((f"<|im_user|>{message.get('name') or 'user'}<|im_middle|>{content}<|im_end|>", False))
        elif role == "tool":
            name = message.get("name") or message["tool_call_id"].split(":")[0].split(".")[-1]
            text = f"<|im_system|>{name}<|im_middle|>## Return of {message['tool_call_id']}\n{content}<|im_end|>"
            out.append((text, False))
        elif role == "assistant":
            reasoning = message.get("reasoning_content") or ""
            shown = reasoning if index > last_answer else ""
            learnt = not (reasoning and not shown) and not message.get("forgotten")
            out.append(("<|im_assistant|>assistant<|im_middle|>", False))
            out.append((f"<think>{shown}</think>", learnt and conversation.thinking))
            out.append((f"{content}{calls_text(message)}<|im_end|>", learnt))
        else:
            out.append((f"<|im_system|>{message.get('name') or 'system'}<|im_middle|>{content}<|im_end|>", False))
    return out


def prompt(conversation: Conversation) -> str:
    """What the server would send for the last assistant turn."""
    pieces = segments(conversation)[:-2]
    return "".join(text for text, _ in pieces) + ("" if conversation.thinking else "<think></think>")


def template(folder: Path) -> jinja2.Template:
    """The checkpoint's chat template, as the gateway compiles it."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, separators=(", ", ": "): json.dumps(value, ensure_ascii=False, separators=separators)
    return environment.from_string((folder / "chat_template.jinja").read_text(encoding="utf-8"))


def check_template(conversations: list[Conversation], folder: Path) -> None:
    """Raises ValueError at the first conversation that the twin renders otherwise than the template."""
    compiled = template(folder)
    for conversation in conversations:
        wanted = compiled.render(
            messages=conversation.messages[:-1], tools=conversation.tools or None, add_generation_prompt=True, thinking=conversation.thinking
        )
        if wanted != prompt(conversation):
            raise ValueError(f"template: {wanted!r}\ntwin:     {prompt(conversation)!r}")
