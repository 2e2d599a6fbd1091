"""What a request asks of the sampler, validated once, at the door."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from wire.errors import InvalidRequestError

MAX_TOP_LOGPROBS = 20
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1024
MAX_STOP_TOKENS = 128
MAX_BIASES = 1024


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen.

    The choice is a function of the logits, these values, the tokens so far and the position, and
    of nothing else: two routers continue one request with the same tokens.

    temperature: 0 takes the most probable token, the lowest id among equals.
    top_p, top_k, min_p: 1, 0 and 0 are off. Applied after temperature, in this order: top_k,
        top_p (of what top_k left), min_p.
    presence_penalty, frequency_penalty: over generated tokens.
    repetition_penalty: over prompt and generated tokens; 1 is off.
    max_tokens: None: as many as fit.
    min_tokens: no end-of-sequence or stop token, and no stop string, before so many.
    stop: the request ends when the text of its output contains one of them.
    ignore_eos: the model's end-of-sequence tokens do not end the request.
    logprobs: number of top alternatives reported with each token; None: no logprobs at all.
    logit_bias: added to the logits of these token ids.

    Raises:
        InvalidRequestError: a value can never be served; the message names field and range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, low=0.0)
        _number("top_p", self.top_p, low=0.0, high=1.0, low_open=True)
        _integer("top_k", self.top_k, low=0)
        _number("min_p", self.min_p, low=0.0, high=1.0)
        _number("presence_penalty", self.presence_penalty, low=-2.0, high=2.0)
        _number("frequency_penalty", self.frequency_penalty, low=-2.0, high=2.0)
        _number("repetition_penalty", self.repetition_penalty, low=0.01, high=100.0)
        _integer("seed", self.seed, low=0, high=2**64 - 1)
        if self.max_tokens is not None:
            _integer("max_tokens", self.max_tokens, low=1)
        _integer("min_tokens", self.min_tokens, low=0, high=self.max_tokens)
        if self.logprobs is not None:
            _integer("logprobs", self.logprobs, low=0, high=MAX_TOP_LOGPROBS)
        _check_stops(self.stop)
        _at_most("stop_token_ids", len(self.stop_token_ids), MAX_STOP_TOKENS)
        for token in self.stop_token_ids:
            _integer("stop_token_ids", token, low=0)
        _at_most("logit_bias", len(self.logit_bias), MAX_BIASES)
        for token, bias in self.logit_bias.items():
            _integer("logit_bias token id", token, low=0)
            _number(f"logit_bias[{token}]", bias, low=-100.0, high=100.0)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    def ending_ids(self, eos_token_ids: Collection[int]) -> frozenset[int]:
        """The tokens that end the request."""
        eos = () if self.ignore_eos else eos_token_ids
        return frozenset((*self.stop_token_ids, *eos))

    @property
    def penalized(self) -> bool:
        """Whether tokens so far change the logits."""
        return (
            self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
            or self.repetition_penalty != 1.0
        )


def _at_most(name: str, count: int, limit: int) -> None:
    if count > limit:
        raise InvalidRequestError(f"{name} has {count} entries, at most {limit} are allowed")


def _check_stops(stops: tuple[str, ...]) -> None:
    _at_most("stop", len(stops), MAX_STOP_STRINGS)
    for stop in stops:
        if not isinstance(stop, str) or not stop or len(stop) > MAX_STOP_LENGTH:
            raise InvalidRequestError(
                f"each stop string must have 1 to {MAX_STOP_LENGTH} characters"
            )


def _number(
    name: str, value: float, *, low: float, high: float = math.inf, low_open: bool = False
) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise InvalidRequestError(f"{name} must be a finite number, not {value!r}")
    if value < low or value > high or (low_open and value == low):
        above = "above" if low_open else "at least"
        upper = "" if high == math.inf else f" and at most {high:g}"
        raise InvalidRequestError(f"{name} must be {above} {low:g}{upper}, not {value!r}")


def _integer(name: str, value: int, *, low: int, high: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequestError(f"{name} must be an integer, not {value!r}")
    if value < low or (high is not None and value > high):
        upper = "" if high is None else f" and at most {high}"
        raise InvalidRequestError(f"{name} must be at least {low}{upper}, not {value!r}")
