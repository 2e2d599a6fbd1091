"""How many requests are accepted and not answered yet."""

from __future__ import annotations

import asyncio


class InFlight:
    """A counter to wait on; for one event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._fell = asyncio.Event()

    def add(self) -> None:
        self.count += 1

    def done(self, number: int = 1) -> None:
        self.count -= number
        self._fell.set()

    async def below(self, limit: int) -> None:
        """Returns once fewer than `limit` are in flight."""
        while self.count >= limit:
            self._fell.clear()
            await self._fell.wait()
