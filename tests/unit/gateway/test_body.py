from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.body import check_depth, parse_json
from wire.errors import InvalidRequestError

JSON = st.recursive(
    st.none() | st.booleans() | st.text(alphabet='[]{}"\\a,:'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('[{"\\'), inner, max_size=3)
    ),
    max_leaves=30,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def values(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values, inner))


@given(JSON)
@settings(deadline=None)
def test_depth_is_counted_outside_of_strings(value: object) -> None:
    body = json.dumps(value).encode()
    check_depth(body, depth(value))
    if depth(value):
        with pytest.raises(InvalidRequestError, match="deeper"):
            check_depth(body, depth(value) - 1)


@given(st.binary())
@settings(deadline=None)
def test_any_bytes_are_an_object_or_a_typed_error(body: bytes) -> None:
    try:
        assert isinstance(parse_json(body, max_depth=100, max_values=500_000), dict)
    except InvalidRequestError as error:
        assert str(error)


def test_a_long_hostile_body_is_judged_quickly() -> None:
    for body in (
        b"[" * 5_000_000,
        b"[" * 200 + b"]" * 15_000_000,
        b'{"x":[' + b",".join([b"[]"] * 5_000_000) + b"]}",
        b'"' + b"\\" * 5_000_000,
        b"[" * 101 + b'"' + b'\\"' * 7_000_000,
        b'{"a":"' + b'[\\"' * 1_000_000,
    ):
        start = time.process_time()
        with pytest.raises(InvalidRequestError):
            parse_json(body, max_depth=100, max_values=500_000)
        assert time.process_time() - start < 1


def test_the_longest_prompts_are_not_too_many_values() -> None:
    for prompt in (list(range(131_072)), "well, " * 131_072, "[{" * 131_072):
        body = json.dumps({"prompt": prompt}).encode()
        assert parse_json(body, max_depth=100, max_values=500_000) == {"prompt": prompt}


@given(JSON)
@settings(deadline=None)
def test_values_are_never_counted_too_low(value: object) -> None:
    body = json.dumps({"x": value}).encode()
    count = values({"x": value})
    with pytest.raises(InvalidRequestError, match="commas and opening brackets"):
        parse_json(body, max_depth=100, max_values=count - 2)


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parse_json(b'{"a": "\\ud83d\\ude42"}', max_depth=2, max_values=10) == {"a": "\U0001f642"}
