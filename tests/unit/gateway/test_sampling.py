"""What the gateway lets through, the router takes: a refusal names its field."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import FieldError
from gateway.fields import Fields
from gateway.sampling import SamplingDefaults, read_sampling
from router_service.sampling import (
    MAX_BIASES,
    MAX_STOP_LENGTH,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKENS,
    SamplingParams,
)
from wire.errors import InvalidRequestError
from wire.messages import sampling_fields

# (field, the extremes that are allowed, what is just beyond them)
LIMITS: list[tuple[str, list[Any], list[Any]]] = [
    ("repetition_penalty", [0.01, 100], [0, 0.009, 100.1]),
    ("presence_penalty", [-2, 2], [-2.1, 2.1]),
    ("frequency_penalty", [-2, 2], [-2.1, 2.1]),
    ("top_p", [1e-9, 1], [0, 1.1]),
    ("min_p", [0, 1], [-0.1, 1.1]),
    ("stop", [["x"] * MAX_STOP_STRINGS], [["x"] * (MAX_STOP_STRINGS + 1)]),
    ("stop", [["x" * MAX_STOP_LENGTH]], [["x" * (MAX_STOP_LENGTH + 1)], [""]]),
    ("stop_token_ids", [[5] * MAX_STOP_TOKENS], [[5] * (MAX_STOP_TOKENS + 1)]),
    (
        "logit_bias",
        [dict.fromkeys(range(MAX_BIASES), 1), {1: -100}, {1: 100}],
        [dict.fromkeys(range(MAX_BIASES + 1), 1), {1: -100.1}, {1: 100.1}],
    ),
]


def through_the_gateway(field: str, value: Any) -> SamplingParams:
    if isinstance(value, dict):
        value = {str(key): item for key, item in value.items()}
    read = read_sampling(
        Fields({field: value}), SamplingDefaults(), vocab_size=5000, logprobs=None, seed=7
    )
    return SamplingParams(**sampling_fields(read.for_choice(0, 10)))


@pytest.mark.parametrize(("field", "allowed", "beyond"), LIMITS)
def test_the_limits_are_the_routers(field: str, allowed: list[Any], beyond: list[Any]) -> None:
    for value in allowed:
        through_the_gateway(field, value)
    for value in beyond:
        with pytest.raises(FieldError) as refused:
            through_the_gateway(field, value)
        assert refused.value.param.split(".")[0] == field
        with pytest.raises(InvalidRequestError):
            SamplingParams(**{field: tuple(value) if isinstance(value, list) else value})
