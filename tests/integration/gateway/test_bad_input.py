"""What clients get wrong: each gets a clear error, and the server goes on serving."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import openai
import pytest

from .conftest import Gateway

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
GOOD: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
PROMPT: dict[str, Any] = {"model": "tiny", "prompt": "hi"}


@pytest.fixture(scope="module")
def gateway(open_gateway: Callable[..., AbstractContextManager[Gateway]]) -> Iterator[Gateway]:
    """One server for all of this: none of it may harm the next request."""
    with open_gateway() as gateway:
        yield gateway


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    """Afterwards the server must still answer."""
    gateway.says("hello<|im_end|>")
    gateway.router.submits.clear()
    with gateway.http() as client:
        yield client
        assert client.post(CHAT, json=GOOD).status_code == 200


def error_of(reply: httpx.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON: .*line 1, column 2"),
        (b"{'a': 1}", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'{"model": "tiny", "temperature": NaN}', "NaN is not a JSON number"),
        (b'{"model": "tiny", "temperature": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"model": "\xff"}', "not UTF-8: bad byte at 11"),
        (b'{"model": "tiny", "user": "\\ud800"}', "unpaired"),
        (b'{"seed": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "deeper than 100"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "deeper than 100"),
        (b"[" * 10_000, "deeper than 100"),
        (b'{"a": "' + b"[" * 10_000, "not valid JSON"),
    ],
)
def test_a_body_that_is_no_request(http: httpx.Client, body: bytes, message: str) -> None:
    headers = {"content-type": "application/json"}
    for path in (CHAT, COMPLETIONS):
        error = error_of(http.post(path, content=body, headers=headers), 400)
        assert error["type"] == "invalid_request_error"
        assert re.search(message, error["message"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", "hot", "temperature must be a number, not a string"),
        ("temperature", -0.1, "temperature must be at least 0 and at most 2, not -0.1"),
        ("temperature", True, "temperature must be a number, not a boolean"),
        ("top_p", 0, "top_p must be above 0 and at most 1"),
        ("top_p", 1.5, "top_p"),
        ("top_k", 1.5, "top_k must be an integer"),
        ("top_k", -2, "top_k"),
        ("min_p", 2, "min_p"),
        ("presence_penalty", 3, "presence_penalty"),
        ("frequency_penalty", [], "frequency_penalty must be a number, not an array"),
        ("repetition_penalty", 0, "repetition_penalty must be at least 0.01 and at most 100"),
        ("max_tokens", 0, "max_tokens must be at least 1"),
        ("max_tokens", -1, "max_tokens"),
        ("max_tokens", "many", "max_tokens must be an integer"),
        ("max_completion_tokens", 2**40, "max_completion_tokens"),
        ("n", 0, "n must be at least 1"),
        ("n", 1000, "n must be at least 1 and at most 128"),
        ("seed", "x", "seed must be an integer"),
        ("seed", 2**64, "seed"),
        ("stop", 7, "stop must be a string or an array of strings"),
        ("stop", ["a", 7], "stop must be"),
        ("stop", [""], "each stop string"),
        ("stop", ["x"] * 17, "at most 16"),
        ("stop_token_ids", [10**6], "stop_token_ids: token ids"),
        ("stop_token_ids", [1] * 129, "at most 128 ids"),
        ("logit_bias", {"x": 1}, "the keys of logit_bias must be token ids"),
        ("logit_bias", {"-1": 1}, "the keys of logit_bias"),
        ("logit_bias", {"5": 101}, r"logit_bias.5 must be at least -100 and at most 100"),
        ("logit_bias", {"999999": 1}, "logit_bias: token ids"),
        ("logit_bias", [1], "logit_bias must be an object"),
        ("stream", "yes", "stream must be true or false"),
        ("stream_options", {"include_usage": True}, "stream_options needs stream"),
        ("ignore_eos", 1, "ignore_eos must be true or false, not a number"),
        ("min_tokens", 10**12, "min_tokens"),
        ("model", 7, "model must be a string"),
        ("model", None, "Missing required parameter: model"),
        ("frobnicate", 1, "Unrecognized request argument: frobnicate"),
    ],
)
def test_an_option_that_is_wrong(
    http: httpx.Client, field: str, value: object, message: str
) -> None:
    for path, good in ((CHAT, GOOD), (COMPLETIONS, PROMPT)):
        error = error_of(http.post(path, json={**good, field: value}), 400)
        assert message in error["message"]
        assert error["param"].split(".")[0] == field


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
def test_a_number_too_large_to_be_one(http: httpx.Client, number: str) -> None:
    body = json.dumps({**GOOD, "temperature": 0.123}).replace("0.123", number)
    reply = http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert error_of(reply, 400)["param"] == "temperature"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("messages", None, "messages must have at least one message"),
        ("messages", "hi", "messages must be an array, not a string"),
        ("messages", ["hi"], "messages[0] must be an object"),
        ("messages", [{"content": "x"}], "Missing required parameter: messages[0].role"),
        ("messages", [{"role": "king", "content": "x"}], "messages[0].role must be one of"),
        ("messages", [{"role": "user"}], "Missing required parameter: messages[0].content"),
        ("messages", [{"role": "user", "content": 7}], "messages[0].content must be a string or"),
        (
            "messages",
            [{"role": "user", "content": [7]}],
            "messages[0].content[0] must be an object",
        ),
        (
            "messages",
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "content of type 'image_url' is not supported",
        ),
        ("messages", [{"role": "user", "content": "x", "y": 1}], "messages[0].y"),
        ("messages", [{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
        (
            "messages",
            [{"role": "tool", "content": "x", "tool_call_id": "q"}],
            "tool_call_id 'q' answers no tool call before it",
        ),
        (
            "messages",
            [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "a b"}}]}],
            "messages[0].tool_calls[0].function.name must be",
        ),
        (
            "messages",
            [{"role": "assistant", "reasoning": "a", "reasoning_content": "b"}],
            "messages[0].reasoning and reasoning_content differ",
        ),
        ("messages", [{"role": "user", "content": "x", "reasoning": "y"}], "messages[0].reasoning"),
        ("tools", {}, "tools must be an array, not an object"),
        ("tools", [{"type": "web"}], "tools[0].type must be 'function'"),
        ("tools", [{"type": "function"}], "tools[0].function.name"),
        ("tool_choice", "required", "forcing a call is not supported"),
        ("tool_choice", {"type": "function", "function": {"name": "x"}}, "not supported"),
        ("top_logprobs", 3, "top_logprobs needs logprobs"),
        ("response_format", {"type": "json_object"}, "response_format"),
        ("functions", [], "functions is not supported"),
        ("parallel_tool_calls", False, "parallel_tool_calls"),
        ("reasoning_effort", "high", "use thinking"),
        ("thinking", "maybe", "thinking must be"),
        ("chat_template_kwargs", {"messages": []}, "chat_template_kwargs.messages"),
        ("chat_template_kwargs", {"thinking": 1}, "chat_template_kwargs.thinking"),
    ],
)
def test_a_chat_option_that_is_wrong(
    http: httpx.Client, field: str, value: object, message: str
) -> None:
    error = error_of(http.post(CHAT, json={**GOOD, field: value}), 400)
    assert message in error["message"]
    assert error["param"].startswith(field)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", None, "Missing required parameter: prompt"),
        ("prompt", "", "non-empty string"),
        ("prompt", [], "prompt must be a string"),
        ("prompt", 7, "prompt must be a string"),
        ("prompt", [[]], "non-empty"),
        ("prompt", [1, "x"], "token ids are integers"),
        ("prompt", [1, 10**9], "token ids are integers"),
        ("prompt", [-1], "token ids are integers"),
        ("prompt", [True], "token ids are integers"),
        ("prompt", ["x"] * 129, "n times the number of prompts"),
        ("best_of", 3, "best_of"),
        ("suffix", "x", "suffix"),
        ("logprobs", 21, "logprobs must be at least 0 and at most 20"),
        ("logprobs", True, "logprobs must be an integer"),
    ],
)
def test_a_completion_option_that_is_wrong(
    http: httpx.Client, field: str, value: object, message: str
) -> None:
    error = error_of(http.post(COMPLETIONS, json={**PROMPT, field: value}), 400)
    assert message in error["message"]


def test_harmless_options_are_taken(http: httpx.Client) -> None:
    extra = {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"}
    assert http.post(CHAT, json={**GOOD, **extra, "stop": None}).status_code == 200


def test_a_model_that_is_not_here(http: httpx.Client) -> None:
    for path, good in ((CHAT, GOOD), (COMPLETIONS, PROMPT)):
        error = error_of(http.post(path, json={**good, "model": "huge"}), 404)
        assert error["code"] == "model_not_found"
        assert "'tiny'" in error["message"]


def test_a_prompt_that_is_too_long(http: httpx.Client, gateway: Gateway) -> None:
    long = {**GOOD, "messages": [{"role": "user", "content": "a b" * 2000}]}
    error = error_of(http.post(CHAT, json=long), 400)
    assert error["code"] == "context_length_exceeded"
    assert "4096" in error["message"]
    error = error_of(http.post(CHAT, json={**GOOD, "max_tokens": 4095}), 400)
    assert error["code"] == "context_length_exceeded"
    assert not gateway.router.submits


def test_a_very_long_word_is_refused_quickly(http: httpx.Client) -> None:
    long = {**GOOD, "messages": [{"role": "user", "content": "a" * 2_000_000}]}
    assert error_of(http.post(CHAT, json=long), 400)["code"] == "context_length_exceeded"


def test_a_body_that_is_too_large(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(max_body_bytes=1000)
    body = json.dumps(GOOD).encode() + b" " * 1000

    def chunks() -> Iterator[bytes]:
        for _ in range(10):
            yield b" " * 500

    headers = {"content-type": "application/json"}
    with gateway.http() as http:
        for content in (body, chunks()):
            error = error_of(http.post(CHAT, content=content, headers=headers), 413)
            assert "1000 bytes" in error["message"]
        gateway.says("hello<|im_end|>")
        assert http.post(CHAT, json=GOOD).status_code == 200


def test_the_wrong_content_type(http: httpx.Client) -> None:
    body = json.dumps(GOOD)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        reply = http.post(CHAT, content=body, headers={"content-type": kind})
        assert "send application/json" in error_of(reply, 415)["message"]
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert (
        "uncompressed" in error_of(http.post(CHAT, content=body, headers=headers), 415)["message"]
    )
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert http.post(CHAT, content=body, headers=headers).status_code == 200


def test_unknown_paths_and_methods(http: httpx.Client) -> None:
    assert "Unknown path /v1/nope" in error_of(http.get("/v1/nope"), 404)["message"]
    reply = http.get(CHAT)
    assert error_of(reply, 405)["code"] == "method_not_allowed"
    assert "POST" in reply.headers["allow"]


def test_the_sdk_knows_the_errors(gateway: Gateway) -> None:
    with gateway.client() as client:
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(**{**GOOD, "temperature": -1})
        assert (bad.value.param, bad.value.code) == ("temperature", "invalid_value")
        with pytest.raises(openai.NotFoundError) as missing:
            client.completions.create(model="huge", prompt="x")
        assert missing.value.code == "model_not_found"
