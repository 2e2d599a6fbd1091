"""Sampling options of both APIs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.errors import FieldError
from gateway.fields import Fields
from router_service.sampling import (
    MAX_BIASES,
    MAX_STOP_LENGTH,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKENS,
    MAX_TOP_LOGPROBS,
)
from wire.generated import orrery_pb2 as pb

MAX_TOKENS = 2**31 - 1
_SEEDS = 2**64


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """What holds where a request is silent: the checkpoint's `generation_config.json`."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A request's options, the same for all its choices.

    params: without seed and max_tokens, which `for_choice` fills in.
    seed: of the first choice.
    max_tokens: None: the rest of the context.
    """

    params: pb.SamplingParams
    seed: int
    max_tokens: int | None

    def for_choice(self, index: int, max_tokens: int) -> pb.SamplingParams:
        """The parameters of one of `n` choices; each has a seed of its own."""
        params = pb.SamplingParams()
        params.CopyFrom(self.params)
        params.seed = derived_seed(self.seed, index)
        params.max_tokens = max_tokens
        return params


def derived_seed(seed: int, index: int) -> int:
    """The seed of choice `index`; choice 0 has the request's own."""
    if index == 0:
        return seed
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def read_sampling(
    fields: Fields, defaults: SamplingDefaults, *, vocab_size: int, logprobs: int | None, seed: int
) -> Sampling:
    """Takes the sampling options out of a request body.

    Args:
        logprobs: top alternatives wanted with each token; None: no logprobs.
        seed: where the request has none.

    Raises:
        FieldError: a value of the wrong type or out of range.
    """
    max_tokens = _max_tokens(fields)
    min_tokens = fields.integer("min_tokens", 0, low=0, high=MAX_TOKENS)
    if max_tokens is not None and min_tokens > max_tokens:
        raise FieldError("min_tokens", "min_tokens must not be above max_tokens")
    params = pb.SamplingParams(
        temperature=fields.number("temperature", defaults.temperature, low=0, high=2),
        top_p=fields.number("top_p", defaults.top_p, low=0, high=1, above=True),
        top_k=_top_k(fields, defaults.top_k),
        min_p=fields.number("min_p", defaults.min_p, low=0, high=1),
        presence_penalty=fields.number("presence_penalty", 0.0, low=-2, high=2),
        frequency_penalty=fields.number("frequency_penalty", 0.0, low=-2, high=2),
        repetition_penalty=fields.number(
            "repetition_penalty", defaults.repetition_penalty, low=0.01, high=100
        ),
        min_tokens=min_tokens,
        stop=_stop_strings(fields),
        stop_token_ids=_stop_token_ids(fields, vocab_size),
        ignore_eos=fields.boolean("ignore_eos", False),
        logprobs=logprobs,
        logit_bias=_logit_bias(fields, vocab_size),
    )
    if fields.given("seed"):
        # OpenAI's seeds are signed; the same bits, unsigned, are ours.
        seed = fields.integer("seed", 0, low=-(2**63), high=_SEEDS - 1) % _SEEDS
    return Sampling(params=params, seed=seed, max_tokens=max_tokens)


def read_top_logprobs(fields: Fields, field: str) -> int:
    return fields.integer(field, 0, low=0, high=MAX_TOP_LOGPROBS)


def _max_tokens(fields: Fields) -> int | None:
    values = {
        field: fields.integer(field, None, low=1, high=MAX_TOKENS)
        for field in ("max_completion_tokens", "max_tokens")
        if fields.given(field)
    }
    if len(set(values.values())) > 1:
        raise FieldError("max_tokens", "max_tokens and max_completion_tokens differ: give one")
    return next(iter(values.values()), None)


def _top_k(fields: Fields, default: int) -> int:
    # -1 is how other servers spell "off".
    return max(0, fields.integer("top_k", default, low=-1, high=MAX_TOKENS))


def _stop_strings(fields: Fields) -> list[str]:
    value = fields.value("stop")
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise fields.wrong("stop", "a string or an array of strings")
    if len(stops) > MAX_STOP_STRINGS:
        raise FieldError("stop", f"stop may have at most {MAX_STOP_STRINGS} strings")
    if not all(1 <= len(stop) <= MAX_STOP_LENGTH for stop in stops):
        raise FieldError("stop", f"each stop string must have 1 to {MAX_STOP_LENGTH} characters")
    return stops


def _stop_token_ids(fields: Fields, vocab_size: int) -> list[int]:
    tokens = fields.array("stop_token_ids")
    if len(tokens) > MAX_STOP_TOKENS:
        raise FieldError("stop_token_ids", f"stop_token_ids may have at most {MAX_STOP_TOKENS} ids")
    return [_token_id("stop_token_ids", token, vocab_size) for token in tokens]


def _logit_bias(fields: Fields, vocab_size: int) -> Mapping[int, float]:
    bias: dict[int, float] = {}
    values = fields.mapping("logit_bias")
    if len(values) > MAX_BIASES:
        raise FieldError("logit_bias", f"logit_bias may have at most {MAX_BIASES} tokens")
    entries = Fields(values, "logit_bias")
    for key in values:
        if not key.isascii() or not key.isdecimal() or len(key) > 10:
            raise FieldError("logit_bias", "the keys of logit_bias must be token ids")
        bias[_token_id("logit_bias", int(key), vocab_size)] = entries.number(
            key, 0.0, low=-100, high=100
        )
    return bias


def _token_id(field: str, value: object, vocab_size: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab_size:
        raise FieldError(field, f"{field}: token ids are integers from 0 to {vocab_size - 1}")
    return value
