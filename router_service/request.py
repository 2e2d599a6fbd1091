"""What a caller hands to the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from router_service.sampling import SamplingParams
from wire.errors import ContextLengthExceededError, InvalidRequestError


@dataclass(frozen=True, kw_only=True)
class Request:
    """One generation request.

    request_id: unique among the requests of its stream.
    output_token_ids: tokens that another router has already produced; they count as outputs for
        penalties, limits and stops, and are not sent again.
    timeout_s: seconds until the request ends with DeadlineExceededError; None: the engine's
        default.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: SamplingParams
    output_token_ids: tuple[int, ...] = ()
    timeout_s: float | None = None

    def check(self, *, vocab_size: int, max_model_len: int) -> None:
        """Refuses what this model can never serve.

        Args:
            max_model_len: positions that prompt and output may fill together.

        Raises:
            InvalidRequestError: a token id is outside the vocabulary, or a value makes no sense.
            ContextLengthExceededError: the prompt leaves no room for a single token.
        """
        if not self.request_id:
            raise InvalidRequestError("request_id must not be empty")
        if not self.prompt_token_ids:
            raise InvalidRequestError("the prompt must have at least one token")
        if self.timeout_s is not None and not (
            math.isfinite(self.timeout_s) and self.timeout_s > 0
        ):
            raise InvalidRequestError(
                f"timeout_s must be a finite number of seconds above 0, not {self.timeout_s!r}"
            )
        _check_ids("prompt_token_ids", self.prompt_token_ids, vocab_size)
        _check_ids("output_token_ids", self.output_token_ids, vocab_size)
        _check_ids("stop_token_ids", self.sampling.stop_token_ids, vocab_size)
        _check_ids("logit_bias", tuple(self.sampling.logit_bias), vocab_size)
        length = len(self.prompt_token_ids)
        if length >= max_model_len:
            raise ContextLengthExceededError(
                f"the prompt has {length} tokens, but this model serves at most {max_model_len} "
                "tokens of prompt and output together"
            )
        if length + len(self.output_token_ids) > max_model_len:
            raise ContextLengthExceededError(
                f"prompt and earlier output have {length + len(self.output_token_ids)} tokens, "
                f"but this model serves at most {max_model_len}"
            )

    def max_output_tokens(self, max_model_len: int) -> int:
        """The request's own limit, clipped to what fits into `max_model_len`."""
        room = max_model_len - len(self.prompt_token_ids)
        limit = self.sampling.max_tokens
        return room if limit is None else min(limit, room)


def _check_ids(name: str, ids: tuple[int, ...], vocab_size: int) -> None:
    if ids and not (min(ids) >= 0 and max(ids) < vocab_size):
        wrong = next(token for token in ids if not 0 <= token < vocab_size)
        raise InvalidRequestError(
            f"{name} has token id {wrong}, outside the vocabulary of {vocab_size}"
        )
