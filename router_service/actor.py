"""The router as a Ray actor: the service's event loop in a background thread.

Ray carries only control; tokens and dispatch go over the service's own gRPC.
"""

from __future__ import annotations

import os
from typing import Any

import ray

from router_service.config import RouterConfig
from router_service.service import RouterService
from wire.background_loop import BackgroundLoop


class Router:
    """What the actor does, free of Ray's decorator so that it can be typed and tested."""

    def __init__(self, config: RouterConfig) -> None:
        self._config = config
        self._loop = BackgroundLoop("router")
        self._service: RouterService | None = None

    def start(self) -> dict[str, Any]:
        """Binds and returns at once; loading goes on. A second call gives the same answer.

        Raises:
            ListenError: a port cannot be listened on.
        """
        if self._service is None:
            self._service = self._loop.run(self._started())
        return {
            "address": self._service.address,
            "metrics_address": self._service.metrics_address,
            "pid": os.getpid(),
            "node": self.node(),
        }

    def ready(self) -> None:
        """Blocks until the engine takes requests; raises InternalError saying why it failed."""
        self._loop.run(self._running().wait_ready())

    def describe(self) -> bytes:
        """A serialized `RouterDescription`."""
        return self._running().describe().SerializeToString()

    def drain(self, deadline_s: float) -> bool:
        return self._loop.run(self._running().drain(deadline_s))

    def stop(self) -> None:
        """Ends what runs and closes the ports; the actor can then be killed without loss."""
        if self._service is not None:
            self._loop.run(self._service.stop())

    def node(self) -> str:
        """The Ray node that this actor runs on."""
        return str(ray.get_runtime_context().get_node_id())

    async def _started(self) -> RouterService:
        service = RouterService(self._config)
        await service.start()
        return service

    def _running(self) -> RouterService:
        if self._service is None:
            raise RuntimeError("the router is not started")
        return self._service


# Several calls at a time: `ready` waits while `describe` and `stop` must get through.
RouterActor = ray.remote(max_concurrency=8)(Router)  # type: ignore[call-overload]
