"""What the engine gives back for a request, step by step."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from wire.errors import OrreryError


class FinishReason(enum.StrEnum):
    """Why a request ended."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class TokenLogprobs:
    """Log probabilities under the raw model distribution, before any sampling parameter.

    token_id, logprob: the token that was chosen.
    top_token_ids, top_logprobs: the most probable tokens, the lowest id first among equals.
    """

    token_id: int
    logprob: float
    top_token_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Why a request ended: the stop string that did it, or the error."""

    reason: FinishReason
    stop_reason: str = ""
    error: OrreryError | None = None

    @classmethod
    def by(cls, error: OrreryError) -> Ending:
        return cls(reason=FinishReason.ERROR, error=error)


@dataclass(frozen=True, kw_only=True)
class RequestOutput:
    """New tokens of one request; the last output of a request has a `finish_reason`.

    token_ids: may be empty; an end-of-sequence or stop token that ended the request is included.
    logprobs: one per token id when the request asked for them.
    stop_reason: the stop string that matched, else empty.
    error: with `FinishReason.ERROR`.
    prompt_tokens, cached_tokens: lengths; cached are those of the prompt that the prefix cache
        spared.
    """

    request_id: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str = ""
    error: OrreryError | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0


class OutputSink(Protocol):
    """Where the outputs of one or many requests go."""

    def deliver(self, outputs: list[RequestOutput]) -> None:
        """Takes the outputs of one engine step; called on the engine's loop, must not block."""
        ...
