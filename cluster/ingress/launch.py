"""Starts and ends the gateway as a Ray Serve application behind Serve's HAProxy."""

from __future__ import annotations

import sys
import threading

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from cluster.blueprint import Blueprint
from cluster.errors import StartError
from cluster.members.setup import labels
from gateway.app import build_app
from gateway.config import GatewayConfig

# Where Serve has its controller, which lives as long as Serve runs.
NAMESPACE_OF_SERVE = "serve"
_APP = "orrery"
_ATTEMPTS = 3


def start_gateway(blueprint: Blueprint, stop: threading.Event) -> None:
    """Returns when the routes are live, or `stop` is set.

    Tried again when Serve gives up on one of its own actors, as it does on a busy machine.

    Raises:
        StartError: Serve refuses.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _run(blueprint)
        except (RayError, RayServeException, RuntimeError) as error:
            if stop.is_set():
                return
            if attempt == _ATTEMPTS:
                raise StartError(f"the gateway did not start: {error}") from error
            print(f"the gateway is started again: {error}", file=sys.stderr)
            stop_gateway(joined=bool(blueprint.config.ray.address))
        else:
            return


def gateway_app(blueprint: Blueprint) -> serve.Application:
    """The gateway as a cluster's config wants it."""
    gateway = blueprint.config.gateway
    config = GatewayConfig(
        model=blueprint.model_dir,
        model_name=blueprint.model_name,
        metrics_listen=f"{blueprint.metrics_listen}:{gateway.metrics_port}",
        router_wait_s=gateway.router_wait_s,
        exact=blueprint.config.exactness == "strict",
    )
    return build_app(
        config,
        replicas=gateway.replicas,
        labels=labels(gateway.nodes),
        one_a_node=bool(gateway.metrics_port),
        drain_s=gateway.drain_s,
    )


def _run(blueprint: Blueprint) -> None:
    http = blueprint.config.http
    # Only on the head: two nodes on one machine would want the same port.
    serve.start(
        http_options=HTTPOptions(host=http.host, port=http.port),
        proxy_location="HeadOnly",
        logging_config=LoggingConfig(enable_access_log=False),
    )
    serve.run(gateway_app(blueprint), name=_APP, route_prefix="/")


def stop_gateway(*, joined: bool) -> None:
    """Ends Serve, if it runs. On a joined cluster others may have come to use it; then only our
    application is ended."""
    if joined and set(serve.status().applications) - {_APP}:
        serve.delete(_APP)
    else:
        serve.shutdown()  # type: ignore[no-untyped-call]
