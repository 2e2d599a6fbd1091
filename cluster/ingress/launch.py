"""Starts and ends the gateway as a Ray Serve application behind Serve's HAProxy."""

from __future__ import annotations

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException

from cluster.blueprint import Blueprint
from cluster.errors import StartError
from gateway.app import build_app
from gateway.config import GatewayConfig

_APP = "orrery"


def start_gateway(blueprint: Blueprint) -> None:
    """Returns when the routes are live.

    Raises:
        StartError: Serve refuses.
    """
    http = blueprint.config.http
    config = GatewayConfig(
        model=blueprint.model_dir,
        model_name=blueprint.model_name,
        metrics_listen=f"{blueprint.metrics_listen}:0",
    )
    try:
        # Only on the head: two nodes on one machine would want the same port.
        serve.start(
            http_options=HTTPOptions(host=http.host, port=http.port), proxy_location="HeadOnly"
        )
        serve.run(
            build_app(config, replicas=blueprint.config.gateway.replicas),
            name=_APP,
            route_prefix="/",
        )
    except (RayError, RayServeException, RuntimeError) as error:
        raise StartError(f"the gateway did not start: {error}") from error


def stop_gateway() -> None:
    """Ends Serve, if it runs."""
    serve.shutdown()  # type: ignore[no-untyped-call]
