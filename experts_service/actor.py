"""The expert worker as a Ray actor: the service's event loop in a background thread.

Ray carries only control; dispatch goes straight to the service's gRPC port.
"""

from __future__ import annotations

import os
from typing import Any

import ray

from experts_service.config import WorkerConfig
from experts_service.service import WorkerService
from wire.background_loop import BackgroundLoop


class ExpertWorker:
    """What the actor does, free of Ray's decorator so that it can be typed and tested."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._loop = BackgroundLoop("expert-worker")
        self._service: WorkerService | None = None

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
        """Blocks until every assigned expert serves; raises InternalError saying why it failed."""
        self._loop.run(self._running().wait_ready())

    def describe(self) -> bytes:
        """A serialized `WorkerDescription`."""
        return self._running().describe().SerializeToString()

    def drain(self, deadline_s: float) -> bool:
        return self._loop.run(self._running().drain(deadline_s))

    def stop(self) -> None:
        """Closes the ports; the actor can then be killed without loss."""
        if self._service is not None:
            self._loop.run(self._service.stop())

    def node(self) -> str:
        """The Ray node that this actor runs on."""
        return str(ray.get_runtime_context().get_node_id())

    async def _started(self) -> WorkerService:
        service = WorkerService(self._config)
        await service.start()
        return service

    def _running(self) -> WorkerService:
        if self._service is None:
            raise RuntimeError("the worker is not started")
        return self._service


# Several calls at a time: `ready` waits while `describe` and `stop` must get through.
ExpertWorkerActor = ray.remote(max_concurrency=8)(ExpertWorker)  # type: ignore[call-overload]
