"""The inline carrier: messages on their way into the gRPC stream, one after another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from wire.carriers.carrier import INLINE
from wire.envelope import Message


class Outbox:
    """Implements `Carrier`; whoever owns the stream reads it.

    Starts a write in the very call that hands the message over, if no other is under way.

    A task would start it only when the event loop comes round, which is late where arithmetic
    holds the loop. So the coroutine of a write is advanced here, as a task would do it.
    """

    name = INLINE

    def __init__(
        self,
        write: Callable[[bytes], Coroutine[Any, Any, None]],
        written: Callable[[], None],
        broken: tuple[type[BaseException], ...],
    ) -> None:
        """
        Args:
            written: called once for each message, also for one that could not be written.
            broken: what `write` raises once the stream has ended; whoever reads it says why.
        """
        self._write = write
        self._written = written
        self._ended: tuple[type[BaseException], ...] = (StopIteration, *broken)
        self._waiting: deque[Message] = deque()
        self._current: Coroutine[Any, Any, None] | None = None
        self._closed = False

    def put(self, message: Message) -> None:
        """Does nothing after `close`."""
        if self._closed:
            return
        self._waiting.append(message)
        if self._current is None:
            self._advance()

    def close(self) -> None:
        """Writes nothing more, and calls back for nothing more."""
        self._closed = True
        self._waiting.clear()
        if self._current is not None:
            self._current.close()
            self._current = None

    def _advance(self, awaited: asyncio.Future[Any] | None = None) -> None:
        while self._current is not None or self._waiting:
            if self._current is None:
                self._current = self._write(bytes(self._waiting.popleft()))
            try:
                future = self._current.send(None)
            except self._ended:
                self._current = None
                self._written()
            else:
                # What a task does to show that it has noticed what it is to wait for.
                future._asyncio_future_blocking = False
                future.add_done_callback(self._advance)
                return
