"""The outputs of one request, for callers in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from router_service.engine import Engine
from router_service.outputs import RequestOutput
from router_service.request import Request


class RequestStream(AsyncIterator[RequestOutput]):
    """Submits a request and iterates over its outputs; ends after the final one."""

    def __init__(self, engine: Engine, request: Request) -> None:
        """Raises what `Engine.submit` raises."""
        self._queue: asyncio.Queue[RequestOutput] = asyncio.Queue()
        self._ended = False
        self._engine = engine
        self._handle = engine.submit(request, self)

    def deliver(self, outputs: list[RequestOutput]) -> None:
        for output in outputs:
            self._queue.put_nowait(output)

    def abort(self) -> None:
        """Ends the request; the iteration still ends with a final output."""
        self._engine.abort(self._handle)

    async def __anext__(self) -> RequestOutput:
        if self._ended:
            raise StopAsyncIteration
        output = await self._queue.get()
        self._ended = output.finish_reason is not None
        return output
