"""The router's gRPC methods: messages in, messages out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from wire.errors import InvalidRequestError
from wire.generated import orrery_pb2 as pb
from wire.messages import placement_from_message
from wire.placement import Placement
from wire.services import Context


class Router(Protocol):
    """What the methods need of a router."""

    def describe(self) -> pb.RouterDescription: ...

    def hear(self, term: int) -> None: ...

    async def serve_stream(
        self, requests: AsyncIterator[pb.GenerateRequest], context: Context
    ) -> None: ...

    async def set_placement(self, placement: Placement) -> None: ...

    async def drain(self, deadline_s: float) -> bool: ...


class Servicer:
    """Implements `wire.services.RouterServicer`."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def generate(self, requests: AsyncIterator[pb.GenerateRequest], context: Context) -> None:
        await self._router.serve_stream(requests, context)

    async def set_placement(self, request: pb.Placement) -> pb.RouterDescription:
        await self._router.set_placement(placement_from_message(request))
        return self._router.describe()

    async def describe(self, request: pb.DescribeRequest) -> pb.RouterDescription:
        self._router.hear(request.term)
        return self._router.describe()

    async def drain(self, request: pb.DrainRequest) -> pb.DrainResponse:
        if not request.deadline_s > 0:
            raise InvalidRequestError(f"deadline_s must be above 0, not {request.deadline_s}")
        return pb.DrainResponse(drained=await self._router.drain(request.deadline_s))
