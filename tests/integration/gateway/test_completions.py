"""Completions as the official SDK sees them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.memory_router import tokens

from .conftest import Gateway


def test_every_kind_of_prompt(gateway: Gateway) -> None:
    gateway.says(" world<|im_end|>")
    end = gateway.tokenizer.special_id("<|im_end|>")
    hello = gateway.tokenizer.encode("hello")
    kinds: list[tuple[Any, list[list[int]]]] = [
        ("hello", [hello]),
        ("<|im_end|>", [gateway.tokenizer.encode("<|im_end|>")]),
        (["hello", "he"], [hello, gateway.tokenizer.encode("he")]),
        ([*hello, end], [[*hello, end]]),
        ([hello, [end, end]], [hello, [end, end]]),
    ]
    with gateway.client() as client:
        for prompt, expected in kinds:
            reply = client.completions.create(model="tiny", prompt=prompt)
            got = [list(submit.prompt_token_ids) for submit in gateway.router.submits]
            gateway.router.submits.clear()
            assert got == expected
            assert [choice.text for choice in reply.choices] == [" world"] * len(expected)
            assert [choice.index for choice in reply.choices] == list(range(len(expected)))
            assert reply.object == "text_completion"
            assert reply.usage is not None
            assert reply.usage.prompt_tokens == sum(map(len, expected))


def test_a_stream_with_usage(gateway: Gateway) -> None:
    gateway.says("hello \U0001f642<|im_end|>", cached_tokens=1)
    with gateway.client() as client:
        chunks = list(
            client.completions.create(
                model="tiny", prompt="x", stream=True, stream_options={"include_usage": True}
            )
        )
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "hello \U0001f642"
    assert chunks[-2].choices[0].finish_reason == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (1, 1)


def test_echo(gateway: Gateway) -> None:
    gateway.says(" world<|im_end|>")
    with gateway.client() as client:
        reply = client.completions.create(model="tiny", prompt="hello", echo=True)
        assert reply.choices[0].text == "hello world"
        chunks = client.completions.create(model="tiny", prompt="hello", echo=True, stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == "hello world"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(gateway: Gateway, stream: bool) -> None:
    gateway.says("helloé<|im_end|>")
    with gateway.client() as client:
        reply: Any = client.completions.create(model="tiny", prompt="x", logprobs=2, stream=stream)
        chunks = list(reply) if stream else [reply]
    parts = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [token for part in parts for token in part.tokens] == [
        "hello",
        "bytes:\\xc3",
        "bytes:\\xa9",
        "<|im_end|>",
    ]
    assert [value for part in parts for value in part.token_logprobs] == [-0.5] * 4
    assert [len(top) for part in parts for top in part.top_logprobs] == [2] * 4
    assert parts[0].text_offset[0] == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("per_step", [1, 4])
def test_text_ends_before_the_stop_string(gateway: Gateway, stream: bool, per_step: int) -> None:
    gateway.says("a\nb\n\n" + "c" * (per_step > 1), stop_reason="\n\n", per_step=per_step)
    with gateway.client() as client:
        reply: Any = client.completions.create(model="tiny", prompt="x", stop="\n\n", stream=stream)
        chunks = list(reply) if stream else [reply]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "a\nb"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_an_incomplete_character_at_the_end_is_replaced(gateway: Gateway) -> None:
    gateway.router.reply = tokens([0x61, 0xE4, 0xB8])
    with gateway.client() as client:
        assert client.completions.create(model="tiny", prompt="x").choices[0].text == "a\ufffd"


def test_seeds_of_prompts_and_samples(gateway: Gateway) -> None:
    gateway.says("hello<|im_end|>")
    with gateway.client() as client:
        client.completions.create(model="tiny", prompt=["a", "b"], n=2, seed=9)
    seeds = [submit.sampling.seed for submit in gateway.router.submits]
    # The same prompt alone would give the same answers, so prompts share their seeds.
    assert seeds[:2] == seeds[2:]
    assert seeds[0] == 9
    assert seeds[1] != 9
