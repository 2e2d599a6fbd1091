"""Says when a request has ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from router_service.outputs import Ending, FinishReason
from router_service.sampling import SamplingParams


class Detokenizer(Protocol):
    """Token ids to text as they arrive (`router_service.visible_text.VisibleText`)."""

    def push(self, ids: Iterable[int]) -> str: ...


class StopChecker:
    """Watches the outputs of one request.

    Stop strings are searched in the text without control tokens, across token borders. A match
    that is complete before `min_tokens` is passed over.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        *,
        max_output: int,
        eos_token_ids: Collection[int],
        new_detokenizer: Callable[[], Detokenizer],
    ) -> None:
        """Args:
        max_output: outputs at which the request ends with `FinishReason.LENGTH`.
        """
        self._sampling = sampling
        self._max_output = max_output
        self._ends = sampling.ending_ids(eos_token_ids)
        self._detokenizer = new_detokenizer() if sampling.stop else None
        self._overlap = max((len(stop) for stop in sampling.stop), default=1) - 1
        self._tail = ""
        self._seen = 0

    def push(self, token: int) -> Ending | None:
        """Takes the next output; returns the ending when it was the last one."""
        self._seen += 1
        match = self._match(token)
        if self._seen >= self._sampling.min_tokens:
            if token in self._ends:
                return Ending(reason=FinishReason.STOP)
            if match is not None:
                return Ending(reason=FinishReason.STOP, stop_reason=match)
        if self._seen >= self._max_output:
            return Ending(reason=FinishReason.LENGTH)
        return None

    def replay(self, tokens: Iterable[int]) -> Ending | None:
        """Takes outputs of an earlier router; returns the ending if they already hold it."""
        return next((end for token in tokens if (end := self.push(token)) is not None), None)

    def _match(self, token: int) -> str | None:
        """The stop string that begins first, of those that end in the text `token` adds."""
        if self._detokenizer is None:
            return None
        old = len(self._tail)
        text = self._tail + self._detokenizer.push((token,))
        self._tail = text[-self._overlap :] if self._overlap else ""
        found = [
            (text.find(stop, max(0, old - len(stop) + 1)), stop) for stop in self._sampling.stop
        ]
        return min(((at, stop) for at, stop in found if at >= 0), default=(0, None))[1]
