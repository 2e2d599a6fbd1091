"""The gateway as a Ray Serve application.

Meant to run behind Serve's HAProxy ingress (`RAY_SERVE_ENABLE_HA_PROXY=1` in the environment of
whoever starts Ray): HAProxy then talks to the HTTP server of each replica, no Ray handle is on a
token's way, and a client that disconnects cancels its request in the replica.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from starlette.applications import Starlette

from gateway.config import GatewayConfig
from gateway.http import create_asgi
from gateway.routers import StaticDirectory
from wire.errors import UnavailableError

CONTROLLER = "orrery-controller"
NAMESPACE = "orrery"
_ASK_S = 5.0
_MOST_REQUESTS = 4096


class ControllerDirectory:
    """The routers that the controller knows; it is asked anew each time, since it may restart."""

    def __init__(self, name: str = CONTROLLER, namespace: str = NAMESPACE) -> None:
        self._name = name
        self._namespace = namespace
        self._handle: Any = None
        self._app: Starlette | None = None

    def speak_for(self, app: Starlette) -> None:
        """Tells the controller, whenever it is asked, where the metrics of `app` are."""
        self._app = app

    async def addresses(self) -> Sequence[str]:
        """Raises:
        UnavailableError: there is no controller, or it does not answer.
        """
        try:
            async with asyncio.timeout(_ASK_S):
                if self._handle is None:
                    self._handle = await asyncio.to_thread(
                        ray.get_actor, self._name, self._namespace
                    )
                addresses: list[str] = await self._handle.routers.remote(self._about())
        except (RayError, ValueError, TimeoutError) as error:
            self._handle = None
            raise UnavailableError(f"the controller does not answer: {error}") from error
        return addresses

    def _about(self) -> dict[str, Any] | None:
        if self._app is None:
            return None
        return {
            "node": ray.get_runtime_context().get_node_id(),
            "pid": os.getpid(),
            "host": ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
            "metrics_address": self._app.state.metrics_address,
        }


class Gateway:
    """One replica. Serve pickles what it was made with again later, so that is plain data."""

    def __init__(self, config: GatewayConfig, routers: tuple[str, ...]) -> None:
        self._config = config
        self._routers = routers

    def __serve_build_asgi_app__(self) -> Starlette:
        if self._routers:
            return create_asgi(self._config, StaticDirectory(self._routers))
        directory = ControllerDirectory()
        app = create_asgi(self._config, directory)
        directory.speak_for(app)
        return app


def build_app(
    config: GatewayConfig,
    *,
    replicas: int = 1,
    routers: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    one_a_node: bool = False,
    drain_s: float = 30.0,
) -> serve.Application:
    """The Serve application, for `serve.run`.

    Args:
        replicas: HTTP processes behind the one port.
        routers: fixed addresses; empty: those that the controller names.
        labels: of the Ray nodes that replicas may run on.
        one_a_node: never two replicas on a node, as when they listen on a fixed port.
        drain_s: how long a replica that is to end finishes what it has begun.
    """
    deployment: Any = serve.deployment(
        serve.ingress()(Gateway),
        name="gateway",
        num_replicas=replicas,
        max_ongoing_requests=_MOST_REQUESTS,
        graceful_shutdown_timeout_s=drain_s,
        ray_actor_options={"num_cpus": 0, **({"label_selector": dict(labels)} if labels else {})},
        # A line for each request would fill the log; the metrics count them.
        logging_config={"enable_access_log": False},
    )
    if one_a_node:
        deployment = deployment.options(max_replicas_per_node=1)
    application: serve.Application = deployment.bind(config, tuple(routers))
    return application
