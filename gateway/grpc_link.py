"""The way to a router over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from wire.clients.generate import GenerateStream
from wire.clients.router import RouterClient
from wire.generated import orrery_pb2 as pb

Result = TypeVar("Result")


class GrpcLink:
    """One channel and one Generate stream, opened again after it was lost."""

    def __init__(self, address: str) -> None:
        """Must be made on a running event loop."""
        self._client = RouterClient(address)
        self._stream: GenerateStream | None = None

    async def describe(self) -> pb.RouterDescription:
        return await self._client.describe()

    async def submit(self, submit: pb.Submit) -> AsyncIterator[pb.RequestOutput]:
        if self._stream is None or self._stream.lost:
            self._stream = self._client.generate()
        return await _to_the_end(self._stream.submit(submit))

    async def abort(self, request_id: str) -> None:
        if self._stream is not None:
            await _to_the_end(self._stream.abort(request_id))

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.close()
        await self._client.close()


async def _to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Finishes a write though its caller is cancelled: gRPC answers a cancelled write by
    cancelling the whole stream, and with it every other client's request."""
    return await asyncio.shield(asyncio.get_running_loop().create_task(work))
