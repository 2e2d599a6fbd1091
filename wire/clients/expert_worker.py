"""Control calls to an expert worker; the dispatcher opens its own stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from wire.channels import open_channel
from wire.clients.call import call
from wire.generated import orrery_pb2 as pb
from wire.messages import epoch_to_message, experts_to_message
from wire.placement import Epoch
from wire.services import EXPERT_WORKER, unary_method

Reply = TypeVar("Reply", bound=Message)

_CONTROL_S = 10.0
_LOAD_S = 600.0
_GRACE_S = 5.0


class ExpertWorkerClient:
    """Every method raises the typed `wire.errors` error of the worker, or `UnavailableError`."""

    def __init__(self, address: str, channel: grpc.aio.Channel | None = None) -> None:
        """`channel`: one to share, which `close` leaves open; else the client opens its own."""
        self._own = channel is None
        self._channel = open_channel(address) if channel is None else channel
        self.address = address
        self._describe = self._method("Describe", pb.WorkerDescription)
        self._load = self._method("Load", pb.WorkerDescription)
        self._evict = self._method("Evict", pb.WorkerDescription)
        self._drain = self._method("Drain", pb.DrainResponse)

    async def describe(
        self, *, term: int = 0, timeout_s: float = _CONTROL_S
    ) -> pb.WorkerDescription:
        """`term`: of the controller that asks; nobody else gives one."""
        return await call(self._describe, pb.DescribeRequest(term=term), timeout_s)

    async def load(
        self,
        epoch: Epoch,
        experts: Mapping[int, Iterable[int]],
        *,
        timeout_s: float = _LOAD_S,
    ) -> pb.WorkerDescription:
        """Loads further experts; they serve when this returns. Idempotent."""
        request = pb.LoadRequest(epoch=epoch_to_message(epoch), experts=experts_to_message(experts))
        return await call(self._load, request, timeout_s)

    async def evict(
        self,
        epoch: Epoch,
        experts: Mapping[int, Iterable[int]],
        *,
        timeout_s: float = _CONTROL_S,
    ) -> pb.WorkerDescription:
        """Drops experts; those not held are none of its business. Idempotent."""
        request = pb.EvictRequest(
            epoch=epoch_to_message(epoch), experts=experts_to_message(experts)
        )
        return await call(self._evict, request, timeout_s)

    async def drain(self, deadline_s: float) -> bool:
        """True once everything accepted is answered; false when the deadline came first."""
        request = pb.DrainRequest(deadline_s=deadline_s)
        response = await call(self._drain, request, deadline_s + _GRACE_S)
        return bool(response.drained)

    async def close(self) -> None:
        if self._own:
            await self._channel.close(None)

    async def __aenter__(self) -> ExpertWorkerClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _method(self, name: str, reply: type[Reply]) -> Callable[..., Awaitable[Reply]]:
        return unary_method(self._channel, EXPERT_WORKER, name, reply)
