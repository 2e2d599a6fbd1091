"""The expert worker as a Ray actor: the service's event loop in a background thread.

Ray carries only control; dispatch goes straight to the service's gRPC port. This module imports
neither torch nor the service: that is the greatest part of a start, and done in `start`.
"""

from __future__ import annotations

from typing import Any

import ray

from experts_service.config import WorkerConfig
from wire.hosting import HostedService, Make


class ExpertWorker(HostedService):
    """What the actor does, free of Ray's decorator so that it can be typed and tested."""

    def __init__(self, config: WorkerConfig) -> None:
        def prepare() -> Make:
            from experts_service.service import WorkerService

            return lambda: WorkerService(config)

        super().__init__("expert worker", prepare, polite=config.polite)

    def start(self) -> dict[str, Any]:
        """See `HostedService.start`; adds the node."""
        return super().start() | {"node": self.node()}

    def node(self) -> str:
        """The Ray node that this actor runs on."""
        return str(ray.get_runtime_context().get_node_id())


# Several calls at a time: `ready` waits while `describe` and `stop` must get through.
ExpertWorkerActor = ray.remote(max_concurrency=8)(ExpertWorker)  # type: ignore[call-overload]
