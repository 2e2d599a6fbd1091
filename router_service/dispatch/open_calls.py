"""The calls of one stream that have no answer yet."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from router_service.dispatch.call import Call

_TURNS = 5
_LONGEST_TURN_S = 0.01


class OpenCalls:
    """Finds a call by its id, and those that have waited too long.

    One timer for all of them, set to the earliest time at which one is due. Arithmetic may have
    held the loop for all that time, with the answer long there. So whoever reads gets a few turns
    of the loop before a call is called late.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, overdue: Callable[[int, Call, float], None]
    ) -> None:
        """`overdue`: called with the id of a call that is due, the call and the time. Ends it, or
        sets a later time in it."""
        self._loop = loop
        self._overdue = overdue
        self._calls: dict[int, Call] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf
        self._turns = 0
        self._late_from = 0.0
        self.pairs = 0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def ids(self) -> list[int]:
        """Oldest first."""
        return list(self._calls)

    def add(self, request_id: int, call: Call, patience_s: float) -> None:
        """`patience_s`: from now until it is due."""
        call.sent_at = now = time.perf_counter()
        call.due = due = now + patience_s
        self._calls[request_id] = call
        self.pairs += call.pairs
        if due < self._next:
            self._look_at(due, now)

    def end(self, request_id: int) -> Call | None:
        """Takes the call out; None if there is none with that id."""
        call = self._calls.pop(request_id, None)
        if call is not None:
            self.pairs -= call.pairs
        return call

    def stop(self) -> None:
        """No call is due any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, due: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = due
        self._timer = self._loop.call_later(due - now, self._look)

    def _look(self) -> None:
        """Sets the timer for the next call, or gives the reader its turns if that is due."""
        self._timer = None
        self._next = math.inf
        if not self._calls:
            return
        first = min(self._calls.values(), key=_due)
        now = time.perf_counter()
        if first.due > now:
            self._look_at(first.due, now)
            return
        # Nobody sets another timer meanwhile.
        self._next = -math.inf
        self._turns = _TURNS
        self._late_from = now
        self._give_turn(min((first.due - first.sent_at) / (10 * _TURNS), _LONGEST_TURN_S))

    def _give_turn(self, wait_s: float) -> None:
        if self._turns > 0:
            self._turns -= 1
            self._timer = self._loop.call_later(wait_s, self._give_turn, wait_s)
            return
        now = time.perf_counter()
        for request_id in self.ids:
            call = self._calls.get(request_id)
            if call is not None and call.due <= self._late_from:
                self._overdue(request_id, call, now)
        self._look()


def _due(call: Call) -> float:
    return call.due
