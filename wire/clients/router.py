"""Control calls to a router, and the way to its generate stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from wire.channels import open_channel
from wire.clients.call import call
from wire.clients.generate import GenerateStream
from wire.generated import orrery_pb2 as pb
from wire.messages import placement_to_message
from wire.placement import Placement
from wire.services import ROUTER, unary_method

Reply = TypeVar("Reply", bound=Message)

_CONTROL_S = 10.0
_GRACE_S = 5.0


class RouterClient:
    """Every method raises the typed `wire.errors` error of the router, or `UnavailableError`."""

    def __init__(self, address: str, channel: grpc.aio.Channel | None = None) -> None:
        """`channel`: one to share, which `close` leaves open; else the client opens its own."""
        self._own = channel is None
        self._channel = open_channel(address) if channel is None else channel
        self.address = address
        self._set_placement = self._method("SetPlacement", pb.RouterDescription)
        self._describe = self._method("Describe", pb.RouterDescription)
        self._drain = self._method("Drain", pb.DrainResponse)

    async def describe(
        self, *, term: int = 0, timeout_s: float = _CONTROL_S
    ) -> pb.RouterDescription:
        """`term`: of the controller that asks; nobody else gives one."""
        return await call(self._describe, pb.DescribeRequest(term=term), timeout_s)

    async def set_placement(
        self, placement: Placement, *, timeout_s: float = _CONTROL_S
    ) -> pb.RouterDescription:
        """Raises `StaleEpochError` when the router has seen a higher epoch."""
        return await call(self._set_placement, placement_to_message(placement), timeout_s)

    async def drain(self, deadline_s: float) -> bool:
        """True once everything accepted is answered; false when the deadline came first."""
        request = pb.DrainRequest(deadline_s=deadline_s)
        response = await call(self._drain, request, deadline_s + _GRACE_S)
        return bool(response.drained)

    def generate(self) -> GenerateStream:
        """Opens a stream that carries any number of requests; close it when done."""
        return GenerateStream(self._channel)

    async def close(self) -> None:
        if self._own:
            await self._channel.close(None)

    async def __aenter__(self) -> RouterClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _method(self, name: str, reply: type[Reply]) -> Callable[..., Awaitable[Reply]]:
        return unary_method(self._channel, ROUTER, name, reply)
