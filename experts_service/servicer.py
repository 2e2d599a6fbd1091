"""The worker's gRPC methods: messages in, messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from wire.errors import InvalidRequestError
from wire.generated import orrery_pb2 as pb
from wire.messages import epoch_from_message, experts_from_message
from wire.placement import Epoch
from wire.services import Context


class Worker(Protocol):
    """What the methods need of a worker."""

    def describe(self) -> pb.WorkerDescription: ...

    def hear(self, term: int) -> None: ...

    async def serve_stream(self, frames: AsyncIterator[bytes], context: Context) -> None: ...

    async def load(self, epoch: Epoch, experts: Mapping[int, Sequence[int]]) -> None: ...

    async def evict(self, epoch: Epoch, experts: Mapping[int, Sequence[int]]) -> None: ...

    async def drain(self, deadline_s: float) -> bool: ...


class Servicer:
    """Implements `wire.services.ExpertWorkerServicer`."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def dispatch(self, frames: AsyncIterator[bytes], context: Context) -> None:
        await self._worker.serve_stream(frames, context)

    async def describe(self, request: pb.DescribeRequest) -> pb.WorkerDescription:
        self._worker.hear(request.term)
        return self._worker.describe()

    async def load(self, request: pb.LoadRequest) -> pb.WorkerDescription:
        epoch = epoch_from_message(request.epoch)
        await self._worker.load(epoch, experts_from_message(request.experts))
        return self._worker.describe()

    async def evict(self, request: pb.EvictRequest) -> pb.WorkerDescription:
        epoch = epoch_from_message(request.epoch)
        await self._worker.evict(epoch, experts_from_message(request.experts))
        return self._worker.describe()

    async def drain(self, request: pb.DrainRequest) -> pb.DrainResponse:
        if not request.deadline_s > 0:
            raise InvalidRequestError(f"deadline_s must be above 0, not {request.deadline_s}")
        return pb.DrainResponse(drained=await self._worker.drain(request.deadline_s))
