"""The expert worker as a Ray actor: the service's event loop in a background thread.

Ray carries only control; dispatch goes straight to the service's gRPC port.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import ray

from experts_service.config import WorkerConfig
from experts_service.service import WorkerService
from wire.hosting import HostedService


class ExpertWorker(HostedService):
    """What the actor does, free of Ray's decorator so that it can be typed and tested."""

    def __init__(self, config: WorkerConfig) -> None:
        super().__init__("expert worker", partial(WorkerService, config))

    def start(self) -> dict[str, Any]:
        """See `HostedService.start`; adds the node."""
        return super().start() | {"node": self.node()}

    def node(self) -> str:
        """The Ray node that this actor runs on."""
        return str(ray.get_runtime_context().get_node_id())


# Several calls at a time: `ready` waits while `describe` and `stop` must get through.
ExpertWorkerActor = ray.remote(max_concurrency=8)(ExpertWorker)  # type: ignore[call-overload]
