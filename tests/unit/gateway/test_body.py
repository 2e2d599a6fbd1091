from __future__ import annotations

import json

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
        assert isinstance(parse_json(body, max_depth=100), dict)
    except InvalidRequestError as error:
        assert str(error)


def test_a_long_hostile_body_is_judged_quickly() -> None:
    for body in (b"[" * 5_000_000, b'"' + b"\\" * 5_000_000, b'{"a":"' + b'[\\"' * 1_000_000):
        with pytest.raises(InvalidRequestError):
            parse_json(body, max_depth=100)


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parse_json(b'{"a": "\\ud83d\\ude42"}', max_depth=2) == {"a": "\U0001f642"}
