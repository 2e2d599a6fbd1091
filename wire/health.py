"""The standard gRPC health service: SERVING only while a process takes work."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class Health:
    """NOT_SERVING until `set_serving(True)`, for the whole server and for its one service."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]

    async def add_to(self, server: grpc.aio.Server) -> None:
        await self.set_serving(False)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_serving(self, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if serving else states.NOT_SERVING
        for name in ("", self._service):
            await self._servicer.set(name, state)
