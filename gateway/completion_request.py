"""The body of `/v1/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.chat_request import HARMLESS, Delivery, read_delivery
from gateway.errors import FieldError, UnsupportedFieldError
from gateway.fields import Fields
from gateway.sampling import Sampling, SamplingDefaults, read_sampling, read_top_logprobs

Prompt = str | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A checked completion request.

    prompts: text (control tokens in it are only text) or token ids, which may be control tokens.
    echo: whether each text begins with its prompt.
    logprobs: whether the answer shows log probabilities.
    """

    prompts: tuple[Prompt, ...]
    echo: bool
    sampling: Sampling
    delivery: Delivery
    logprobs: bool


def read_completion_request(
    body: Mapping[str, Any],
    defaults: SamplingDefaults,
    *,
    vocab_size: int,
    max_choices: int,
    seed: int,
) -> CompletionRequest:
    """Raises:
    FieldError: a field is wrong, unknown, or asks for what is not served.
    """
    fields = Fields(body)
    fields.string("model")
    prompts = _prompts(fields, vocab_size)
    logprobs = fields.given("logprobs")
    top = read_top_logprobs(fields, "logprobs")
    sampling = read_sampling(
        fields, defaults, vocab_size=vocab_size, logprobs=top if logprobs else None, seed=seed
    )
    delivery = read_delivery(fields, max_choices)
    if delivery.n * len(prompts) > max_choices:
        raise FieldError("n", f"n times the number of prompts must be at most {max_choices}")
    if fields.given("best_of") and fields.integer("best_of", 1, low=1, high=20) != delivery.n:
        raise UnsupportedFieldError("best_of", "best_of is not supported beyond n")
    if fields.given("suffix") and fields.string("suffix"):
        raise UnsupportedFieldError("suffix", "suffix is not supported")
    echo = fields.boolean("echo", False)
    if echo and logprobs:
        raise UnsupportedFieldError("echo", "echo with logprobs is not supported")
    fields.ignore(HARMLESS)
    fields.refuse_unknown()
    return CompletionRequest(
        prompts=prompts, echo=echo, sampling=sampling, delivery=delivery, logprobs=logprobs
    )


def _prompts(fields: Fields, vocab_size: int) -> tuple[Prompt, ...]:
    value = fields.value("prompt")
    if isinstance(value, str) or _is_ids(value):
        value = [value]
    if value is None:
        raise FieldError(
            "prompt", "Missing required parameter: prompt", code="missing_required_parameter"
        )
    if not isinstance(value, list) or not value:
        raise fields.wrong("prompt", "a string, an array of strings, or (arrays of) token ids")
    return tuple(_prompt(item, vocab_size) for item in value)


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], int)


def _prompt(value: object, vocab_size: int) -> Prompt:
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, list) or not value:
        raise FieldError(
            "prompt",
            "each prompt must be a non-empty string or a non-empty array of token ids",
            code="invalid_value",
        )
    for token in value:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
            raise FieldError("prompt", f"prompt: token ids are integers from 0 to {vocab_size - 1}")
    return tuple(value)
