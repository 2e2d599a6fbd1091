"""Sampling parameters are checked at the door, with a message that says what is allowed."""

from __future__ import annotations

import math

import pytest

from router_service.sampling import SamplingParams
from wire.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("temperature", -0.1, "at least 0"),
        ("temperature", math.nan, "finite"),
        ("temperature", math.inf, "finite"),
        ("temperature", "hot", "finite number"),
        ("temperature", True, "finite number"),
        ("top_p", 0.0, "above 0 and at most 1"),
        ("top_p", 1.01, "at most 1"),
        ("top_p", math.nan, "finite"),
        ("top_k", -1, "at least 0"),
        ("top_k", 2.5, "an integer"),
        ("min_p", -0.5, "at least 0"),
        ("min_p", 1.5, "at most 1"),
        ("presence_penalty", 2.1, "at most 2"),
        ("frequency_penalty", -math.inf, "finite"),
        ("repetition_penalty", 0.0, "at least 0.01"),
        ("repetition_penalty", math.nan, "finite"),
        ("seed", -1, "at least 0"),
        ("seed", 2**64, "at most"),
        ("max_tokens", 0, "at least 1"),
        ("min_tokens", -1, "at least 0"),
        ("logprobs", 21, "at most 20"),
        ("stop", ("",), "1 to 1024 characters"),
        ("stop", ("x",) * 17, "at most 16"),
        ("stop_token_ids", (-1,), "at least 0"),
        ("stop_token_ids", (1,) * 129, "at most 128"),
        ("logit_bias", {3: math.nan}, r"logit_bias\[3\] must be a finite"),
        ("logit_bias", {3: 101.0}, "at most 100"),
        ("logit_bias", {-3: 1.0}, "at least 0"),
        ("logit_bias", dict.fromkeys(range(1025), 0.0), "at most 1024"),
    ],
)
def test_a_wrong_value_is_refused_and_named(field: str, value: object, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as caught:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert field in str(caught.value)


def test_min_tokens_may_not_exceed_max_tokens() -> None:
    with pytest.raises(InvalidRequestError, match="min_tokens must be at least 0 and at most 4"):
        SamplingParams(max_tokens=4, min_tokens=5)


def test_the_edges_are_allowed() -> None:
    SamplingParams(
        temperature=0.0,
        top_p=1.0,
        min_p=1.0,
        presence_penalty=-2.0,
        seed=2**64 - 1,
        max_tokens=1,
        min_tokens=1,
        logprobs=20,
        logit_bias={0: -100.0},
    )
