"""The calls of one stream that have no answer yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from router_service.dispatch.call import Call

_TURNS = 5


class OpenCalls:
    """Finds a call by its id, and those that have waited too long.

    One timer for all of them: each call gets the same time, so the oldest is the first to expire.
    Arithmetic may have held the loop for all that time, with the answer long there. So whoever
    reads gets a few turns of the loop before a call is called late.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadline_s: float,
        expired: Callable[[int], None],
    ) -> None:
        """`expired`: called with the id of a call that is too old and has to be ended."""
        self._loop = loop
        self._deadline_s = deadline_s
        self._expired = expired
        self._calls: dict[int, Call] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._turns = 0
        self._late_from = 0.0
        self.pairs = 0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def ids(self) -> list[int]:
        """Oldest first."""
        return list(self._calls)

    def add(self, request_id: int, call: Call) -> None:
        call.sent_at = time.perf_counter()
        self._calls[request_id] = call
        self.pairs += call.pairs
        if self._timer is None:
            self._timer = self._loop.call_later(self._deadline_s, self._look)

    def end(self, request_id: int) -> Call | None:
        """Takes the call out; None if there is none with that id."""
        call = self._calls.pop(request_id, None)
        if call is not None:
            self.pairs -= call.pairs
        return call

    def stop(self) -> None:
        """No call expires any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Sets the timer for the oldest call, or gives the reader its turns if that is too old."""
        self._timer = None
        if not self._calls:
            return
        oldest = next(iter(self._calls.values()))
        now = time.perf_counter()
        left = oldest.sent_at + self._deadline_s - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._turns = _TURNS
        self._late_from = now - self._deadline_s
        self._give_turn()

    def _give_turn(self) -> None:
        if self._turns > 0:
            self._turns -= 1
            wait = self._deadline_s / (10 * _TURNS)
            self._timer = self._loop.call_later(wait, self._give_turn)
            return
        for request_id in self.ids:
            call = self._calls.get(request_id)
            if call is not None and call.sent_at <= self._late_from:
                self._expired(request_id)
        self._look()
