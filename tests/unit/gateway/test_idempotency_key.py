from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from gateway.errors import TransportError
from gateway.idempotency_key import MOST_CHARACTERS, SeenKeys, read_key


def headers(*keys: str, **others: str) -> Headers:
    raw = [(b"idempotency-key", key.encode("latin-1")) for key in keys]
    raw += [(name.encode(), value.encode()) for name, value in others.items()]
    return Headers(raw=raw)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"two words"', "two words"),
        (r'"a \"quote\" and a \\"', r'a "quote" and a \ '.strip()),
        ("a:b/c+d=", "a:b/c+d="),
        ("  x ", "x"),
        ('quote"inside', 'quote"inside'),
        ("x" * MOST_CHARACTERS, "x" * MOST_CHARACTERS),
    ],
)
def test_a_key_is_read_quoted_or_bare(value: str, key: str) -> None:
    assert read_key(headers(value)) == key


@pytest.mark.parametrize(
    "value",
    [
        *("", '""', '"', '"open', "two words", "caf\u00e9", '"\u00e9"', "a\tb"),
        *(r'"\a"', '"a";p=1', "x" * (MOST_CHARACTERS + 1)),
    ],
)
def test_a_malformed_key_is_refused(value: str) -> None:
    with pytest.raises(TransportError, match="malformed") as caught:
        read_key(headers(value))
    assert (caught.value.status, caught.value.api_code) == (400, "invalid_idempotency_key")


def test_two_keys_are_refused_and_none_is_none() -> None:
    with pytest.raises(TransportError, match="more than one"):
        read_key(headers("a", "a"))
    assert read_key(headers()) is None


def test_a_key_stands_for_one_request() -> None:
    seen = SeenKeys()
    seen.take(headers("k"), "one")
    seen.take(headers('"k"'), "one")
    seen.take(headers("other"), "two")
    seen.take(headers(), "three")
    with pytest.raises(TransportError, match="another request") as caught:
        seen.take(headers("k"), "two")
    assert (caught.value.status, caught.value.api_code) == (422, "idempotency_key_reused")
    seen.take(headers("k"), "one")
    seen.take(headers("k", authorization="Bearer b"), "two")


def test_the_least_recently_used_keys_are_forgotten() -> None:
    seen = SeenKeys(most=2)
    for key in ("a", "b", "a", "c"):
        seen.take(headers(key), "one")
    with pytest.raises(TransportError):
        seen.take(headers("a"), "two")
    seen.take(headers("b"), "two")
