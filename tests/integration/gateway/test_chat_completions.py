"""Chat completions as the official SDK sees them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.support.deadline import wait_until

from .conftest import Gateway

HI: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
        },
    }
]
CALLED = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
CALLS = (
    "<think>hm</think>Sure.<|tool_calls_section_begin|>"
    '<|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{"a":1}<|tool_call_end|>'
    '<|tool_call_begin|>functions.add:1<|tool_call_argument_begin|>{"a":2}<|tool_call_end|>'
    "<|tool_calls_section_end|><|im_end|>"
)


def test_an_answer(gateway: Gateway) -> None:
    text = "hello wörld \U0001f642<|im_end|>"
    gateway.says(text, cached_tokens=3)
    with gateway.client() as client:
        reply = client.chat.completions.create(model="tiny", messages=HI)
    assert reply.choices[0].message.content == "hello wörld \U0001f642"
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.object == "chat.completion"
    assert reply.model == "tiny"
    assert reply.usage is not None
    submit = gateway.router.submits[0]
    assert reply.usage.prompt_tokens == len(submit.prompt_token_ids)
    assert reply.usage.completion_tokens == len(gateway.tokenizer.encode_with_special(text))
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 3
    prompt = gateway.tokenizer.decode(submit.prompt_token_ids)
    assert (
        prompt == "<|im_user|>user<|im_middle|>hi<|im_end|><|im_assistant|>assistant<|im_middle|>"
    )


def test_a_stream(gateway: Gateway) -> None:
    gateway.says("<think>a é</think>hello \U0001f642<|im_end|>")
    with gateway.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="tiny", messages=HI, stream=True, stream_options={"include_usage": True}
            )
        )
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "hello \U0001f642"
    thoughts = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    assert "".join(thoughts) == "a é"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    usage = chunks[-1].usage
    assert not chunks[-1].choices
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == len(
        ["a", " ", *"é".encode(), "</think>"]
    )
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_bytes_of_a_stream(gateway: Gateway) -> None:
    gateway.says("hello<|im_end|>")
    body = {"model": "tiny", "messages": HI, "stream": True}
    with gateway.http() as http:
        reply = http.post("/v1/chat/completions", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert "usage" not in reply.text


def test_reasoning_of_a_whole_answer(gateway: Gateway) -> None:
    gateway.says("<think>because</think>yes<|im_end|>")
    with gateway.client() as client:
        message = client.chat.completions.create(model="tiny", messages=HI).choices[0].message
    assert message.content == "yes"
    assert message.model_extra == {"reasoning_content": "because"}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_an_assistant_that_only_thought(gateway: Gateway, field: str) -> None:
    gateway.says("yes<|im_end|>")
    history: Any = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": CALLED, field: "because"},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
        {"role": "assistant", "content": None},
        *HI,
    ]
    with gateway.client() as client:
        client.chat.completions.create(model="tiny", messages=history[:3])
        client.chat.completions.create(model="tiny", messages=history)
    first, second = (
        gateway.tokenizer.decode(submit.prompt_token_ids) for submit in gateway.router.submits
    )
    assert "assistant<|im_middle|><think>because</think><|tool_calls_section_begin|>" in first
    assert "assistant<|im_middle|><think></think><|im_end|>" in second


@pytest.mark.parametrize(
    "extra",
    [
        {"thinking": False},
        {"thinking": {"type": "disabled"}},
        {"chat_template_kwargs": {"thinking": False}},
    ],
)
def test_thinking_can_be_switched_off(gateway: Gateway, extra: dict[str, Any]) -> None:
    gateway.says("yes<|im_end|>")
    with gateway.client() as client:
        client.chat.completions.create(model="tiny", messages=HI, extra_body=extra)
    prompt = gateway.tokenizer.decode(gateway.router.submits[0].prompt_token_ids)
    assert prompt.endswith("<|im_middle|><think></think>")


def test_tool_calls(gateway: Gateway) -> None:
    gateway.says(CALLS)
    with gateway.client() as client:
        choice = client.chat.completions.create(model="tiny", messages=HI, tools=TOOLS).choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "Sure."
        calls: Any = choice.message.tool_calls
        assert [(c.id, c.function.name, c.function.arguments) for c in calls] == [
            ("functions.add:0", "add", '{"a":1}'),
            ("functions.add:1", "add", '{"a":2}'),
        ]
        # The reply goes back into the history as the SDK writes it.
        history = [
            *HI,
            choice.message.model_dump(),
            {"role": "tool", "tool_call_id": "functions.add:1", "content": "2<|im_end|>"},
        ]
        again = client.chat.completions.create(model="tiny", messages=history, tools=TOOLS)
    calls = again.choices[0].message.tool_calls
    assert [call.id for call in calls] == ["functions.add:2", "functions.add:3"]
    prompt = gateway.tokenizer.decode(gateway.router.submits[1].prompt_token_ids)
    assert "## Return of functions.add:1\n2<|im_end|><|im_end|>" in prompt
    ends = list(gateway.router.submits[1].prompt_token_ids).count(
        gateway.tokenizer.special_id("<|im_end|>")
    )
    assert ends == 4


def test_streamed_tool_calls_name_first_then_arguments(gateway: Gateway) -> None:
    gateway.says(CALLS)
    with gateway.client() as client:
        chunks = list(
            client.chat.completions.create(model="tiny", messages=HI, tools=TOOLS, stream=True)
        )
    pieces: Any = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    for index in (0, 1):
        mine = [piece for piece in pieces if piece.index == index]
        assert (mine[0].id, mine[0].function.name) == (f"functions.add:{index}", "add")
        assert all(piece.id is None and piece.function.name is None for piece in mine[1:])
        arguments = "".join(piece.function.arguments for piece in mine)
        assert json.loads(arguments) == {"a": index + 1}
        assert len(mine) > 3
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_without_tools_a_call_is_content(gateway: Gateway) -> None:
    gateway.says(CALLS)
    with gateway.client() as client:
        for options in ({}, {"tools": TOOLS, "tool_choice": "none"}):
            choice = client.chat.completions.create(
                model="tiny",
                messages=HI,
                **options,  # type: ignore[arg-type]
            ).choices[0]
            assert choice.finish_reason == "stop"
            assert choice.message.tool_calls is None
            content = CALLS.replace("<think>hm</think>", "").replace("<|im_end|>", "")
            assert choice.message.content == content
    prompt = gateway.tokenizer.decode(gateway.router.submits[1].prompt_token_ids)
    assert "tool_declare" not in prompt


def test_logprobs(gateway: Gateway) -> None:
    gateway.says("é<|im_end|>")
    with gateway.client() as client:
        for stream in (False, True):
            reply: Any = client.chat.completions.create(
                model="tiny", messages=HI, logprobs=True, top_logprobs=2, stream=stream
            )
            chunks = list(reply) if stream else [reply]
            entries = [
                entry
                for chunk in chunks
                if chunk.choices[0].logprobs
                for entry in chunk.choices[0].logprobs.content
            ]
            assert [entry.bytes for entry in entries] == [[0xC3], [0xA9], list(b"<|im_end|>")]
            assert [len(entry.top_logprobs) for entry in entries] == [2, 2, 2]
            assert entries[0].logprob == -0.5


def test_several_choices_have_seeds_of_their_own(gateway: Gateway) -> None:
    gateway.says("hello<|im_end|>")
    with gateway.client() as client:
        reply = client.chat.completions.create(model="tiny", messages=HI, n=3, seed=7)
        assert [choice.index for choice in reply.choices] == [0, 1, 2]
        assert [choice.message.content for choice in reply.choices] == ["hello"] * 3
        first = [submit.sampling.seed for submit in gateway.router.submits]
        client.chat.completions.create(model="tiny", messages=HI, n=3, seed=7)
        client.chat.completions.create(model="tiny", messages=HI, n=2)
    seeds = [submit.sampling.seed for submit in gateway.router.submits]
    assert seeds[3:6] == first
    assert first[0] == 7
    assert len(set(seeds)) == 5
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == len(gateway.router.submits[0].prompt_token_ids)
    assert reply.usage.completion_tokens == 6


def test_several_streamed_choices(gateway: Gateway) -> None:
    gateway.says("hello<|im_end|>")
    with gateway.client() as client:
        chunks = list(client.chat.completions.create(model="tiny", messages=HI, n=3, stream=True))
    texts = {0: "", 1: "", 2: ""}
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: "hello", 1: "hello", 2: "hello"}


def test_options_reach_the_engine(gateway: Gateway) -> None:
    gateway.says("hello<|im_end|>")
    with gateway.client() as client:
        client.chat.completions.create(
            model="tiny",
            messages=HI,
            temperature=0,
            top_p=0.5,
            presence_penalty=1,
            frequency_penalty=-1,
            logit_bias={"5": 2},
            stop=["x", "yy"],
            seed=-1,
            max_completion_tokens=4,
            extra_body={"top_k": 3, "min_p": 0.25, "repetition_penalty": 1.5, "min_tokens": 2},
        )
        client.chat.completions.create(model="tiny", messages=HI)
    sampling = gateway.router.submits[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (
        0,
        0.5,
        3,
        0.25,
    )
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1, -1)
    assert (sampling.repetition_penalty, dict(sampling.logit_bias)) == (1.5, {5: 2.0})
    assert (list(sampling.stop), sampling.seed) == (["x", "yy"], 2**64 - 1)
    assert (sampling.max_tokens, sampling.min_tokens) == (4, 2)
    assert not sampling.HasField("logprobs")
    plain = gateway.router.submits[1]
    assert plain.sampling.temperature == 0.6
    assert plain.sampling.max_tokens == 4096 - len(plain.prompt_token_ids)


def test_max_tokens_ends_with_length(gateway: Gateway) -> None:
    gateway.says("hello world<|im_end|>")
    with gateway.client() as client:
        reply = client.chat.completions.create(model="tiny", messages=HI, max_tokens=2)
    assert reply.choices[0].finish_reason == "length"
    assert reply.choices[0].message.content == "hello w"


@pytest.mark.parametrize("stream", [False, True])
def test_text_ends_before_the_stop_string(gateway: Gateway, stream: bool) -> None:
    gateway.says("one <ENtwo <END", stop_reason="<END")
    with gateway.client() as client:
        reply: Any = client.chat.completions.create(
            model="tiny", messages=HI, stop=["<END", "never"], stream=stream
        )
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in reply)
            if stream
            else reply.choices[0].message.content
        )
    assert text == "one <ENtwo "


def test_the_models(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").model_extra == {"max_model_len": 4096}
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("huge")
    assert caught.value.code == "model_not_found"


def test_health_says_whether_a_router_is_ready(gateway: Gateway) -> None:
    with gateway.http() as http:
        assert http.get("/health").json()["status"] == "ok"
        gateway.router.state = "loading"
        wait_until(lambda: http.get("/health").status_code == 503, "the gateway to notice")
        reply = http.get("/health")
        assert reply.json()["routers"][0]["state"] == "loading"


def test_requests_are_counted(gateway: Gateway) -> None:
    gateway.says("hello<|im_end|>")
    with gateway.client() as client:
        client.chat.completions.create(model="tiny", messages=HI)
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="tiny", messages=[])
    count = gateway.registry.get_sample_value
    path = "/v1/chat/completions"
    for code in ("200", "400"):
        labels = {"path": path, "code": code}
        assert count("orrery_gateway_http_requests_total", labels) == 1
    assert count("orrery_gateway_request_seconds_count", {"path": path}) == 2
