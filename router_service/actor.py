"""The router as a Ray actor: the service's event loop in a background thread.

Ray carries only control; tokens and dispatch go over the service's own gRPC. This module imports
neither torch nor the service: that is the greatest part of a start, and done in `start`.
"""

from __future__ import annotations

from typing import Any

import ray

from router_service.config import RouterConfig
from wire.hosting import HostedService, Make


class Router(HostedService):
    """What the actor does, free of Ray's decorator so that it can be typed and tested."""

    def __init__(self, config: RouterConfig) -> None:
        def prepare() -> Make:
            from router_service.service import RouterService

            return lambda: RouterService(config)

        super().__init__("router", prepare, polite=config.polite)

    def start(self) -> dict[str, Any]:
        """See `HostedService.start`; adds the node."""
        return super().start() | {"node": self.node()}

    def node(self) -> str:
        """The Ray node that this actor runs on."""
        return str(ray.get_runtime_context().get_node_id())


# Several calls at a time: `ready` waits while `describe` and `stop` must get through.
RouterActor = ray.remote(max_concurrency=8)(Router)  # type: ignore[call-overload]
