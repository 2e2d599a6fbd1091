"""Threads that compute while the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class Team:
    """The parts of a computation have to release the interpreter lock, as compiled functions do,
    or they run one after another, and the loop waits for them."""

    def __init__(self, threads: int) -> None:
        """Threads start when they are first needed; a team of one has none, and the caller
        computes."""
        self.size = max(1, threads)
        self._pool = (
            ThreadPoolExecutor(self.size, thread_name_prefix="arithmetic")
            if self.size > 1
            else None
        )
        self._parts = 0

    @property
    def idle(self) -> int:
        """Threads that would begin at once, at least 1."""
        return max(1, self.size - self._parts)

    async def run(self, parts: Sequence[Callable[[], _T]]) -> list[_T]:
        """What the parts return, in their order.

        Returns, or raises what a part has raised, only when every part has ended, unless it is
        cancelled.
        """
        if self._pool is None:
            return [part() for part in parts]
        loop = asyncio.get_running_loop()
        self._parts += len(parts)
        pending = [loop.run_in_executor(self._pool, part) for part in parts]
        try:
            await asyncio.wait(pending)
        finally:
            self._parts -= len(parts)
        return [one.result() for one in pending]
