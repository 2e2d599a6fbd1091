"""The accepted requests that have not ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router_service.sequence import Sequence


class LiveRequests:
    """Holds each request from its acceptance to its end, with the timer of its deadline."""

    def __init__(self) -> None:
        self._sequences: dict[int, Sequence] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._none = asyncio.Event()
        self._none.set()

    @property
    def none(self) -> bool:
        return not self._sequences

    @property
    def all(self) -> list[Sequence]:
        return list(self._sequences.values())

    def add(self, seq: Sequence, timeout_s: float, expire: Callable[[Sequence], None]) -> None:
        """Holds `seq`; calls `expire` with it if it is still held after `timeout_s`."""
        loop = asyncio.get_running_loop()
        self._sequences[seq.number] = seq
        self._timers[seq.number] = loop.call_later(timeout_s, expire, seq)
        self._none.clear()

    def remove(self, seq: Sequence) -> None:
        del self._sequences[seq.number]
        self._timers.pop(seq.number).cancel()
        if not self._sequences:
            self._none.set()

    async def wait_until_none(self, deadline_s: float) -> bool:
        """Waits for the last request to end; false: the deadline came first."""
        try:
            async with asyncio.timeout(deadline_s):
                await self._none.wait()
        except TimeoutError:
            return False
        return True
