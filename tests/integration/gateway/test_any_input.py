"""Whatever a client sends, the answer is one that the API knows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import Gateway

FULL: dict[str, Any] = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "me"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "r",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ],
    "prompt": ["x", [1, 2]],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "tool_choice": "auto",
    "temperature": 1,
    "top_p": 1,
    "top_k": 0,
    "n": 1,
    "stop": ["x"],
    "stop_token_ids": [1],
    "logit_bias": {"1": 1},
    "max_tokens": 3,
    "seed": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "logprobs": 1,
    "top_logprobs": 1,
    "chat_template_kwargs": {"thinking": True},
    "response_format": {"type": "text"},
    "metadata": {},
}
ONLY = {
    "/v1/chat/completions": {"prompt"},
    "/v1/completions": {
        *("messages", "tools", "tool_choice", "top_logprobs", "chat_template_kwargs"),
        "response_format",
    },
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["\x00", "<|im_end|>", "\ue000", "auto", "tool"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a JSON value."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


@pytest.fixture(scope="module")
def http(
    open_gateway: Callable[..., AbstractContextManager[Gateway]],
) -> Iterator[httpx.Client]:
    with open_gateway(max_choices=4) as gateway, gateway.http() as client:
        gateway.says("hello<|im_end|>")
        yield client


@pytest.mark.parametrize("path", ONLY)
@given(data=st.data(), value=VALUES)
@settings(deadline=None, max_examples=250)
def test_any_value_anywhere(http: httpx.Client, path: str, data: st.DataObject, value: Any) -> None:
    body = copy.deepcopy({k: v for k, v in FULL.items() if k not in ONLY[path]})
    if path == "/v1/chat/completions":
        body["logprobs"] = True
    where = data.draw(st.sampled_from(list(places(body))))
    target: Any = body
    for step in where[:-1]:
        target = target[step]
    target[where[-1]] = value
    content = json.dumps(body).encode()
    reply = http.post(path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code in (200, 400, 404), reply.text
    if reply.status_code != 200:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    elif reply.headers["content-type"].startswith("text/event-stream"):
        assert reply.text.endswith("data: [DONE]\n\n")
    else:
        assert reply.json()["choices"]
