"""Where time goes, told by wrapping functions from outside."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any


class Phases:
    """Seconds and calls by name. A call's own time only: what a timed call calls within is told
    apart, so that the phases of one thread never add up to more than its time.

    Threads are told apart too. Two that time the same name at one moment may lose a call.

    beside_s: of all seconds, those of other threads than the one that made this.
    """

    def __init__(self, *, on: bool = True) -> None:
        self.on = on
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.beside_s = 0.0
        self._first = threading.get_ident()
        self._thread = threading.local()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, its time counted as `name`."""

        @functools.wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not self.on:
                return call(*args, **kwargs)
            stack = self._stack()
            stack.append(0.0)
            began = perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self._add(name, stack, perf_counter() - began)

        return wrapped

    def timed_coroutine(
        self, name: str, call: Callable[..., Coroutine[Any, Any, Any]]
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """The same of a coroutine function that never suspends."""

        @functools.wraps(call)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not self.on:
                return await call(*args, **kwargs)
            stack = self._stack()
            stack.append(0.0)
            began = perf_counter()
            try:
                return await call(*args, **kwargs)
            finally:
                self._add(name, stack, perf_counter() - began)

        return wrapped

    def _stack(self) -> list[float]:
        if not hasattr(self._thread, "stack"):
            self._thread.stack = [0.0]
        stack: list[float] = self._thread.stack
        return stack

    def _add(self, name: str, stack: list[float], took: float) -> None:
        own = took - stack.pop()
        stack[-1] += took
        self.seconds[name] = self.seconds.get(name, 0.0) + own
        self.calls[name] = self.calls.get(name, 0) + 1
        if threading.get_ident() != self._first:
            self.beside_s += own
