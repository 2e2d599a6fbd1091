"""Gateways as a cluster runs them, without the ingress before them: one an actor, to be killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import ray

from cluster.blueprint import Blueprint
from gateway.app import ControllerDirectory
from gateway.config import GatewayConfig
from gateway.http import create_asgi
from tests.support.deadline import wait_until
from tests.support.http_server import serve_http

_START_S = 60.0


class GatewayHost:
    """A gateway that asks the controller for its routers."""

    def __init__(self, config: GatewayConfig) -> None:
        self._stack = ExitStack()
        app = create_asgi(config, ControllerDirectory())
        self._url = self._stack.enter_context(serve_http(app))

    def about(self) -> tuple[str, int]:
        """URL and process id."""
        return self._url, os.getpid()

    def stop(self) -> None:
        self._stack.close()


@dataclass(frozen=True, kw_only=True)
class Gateway:
    url: str
    pid: int

    @property
    def healthy(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).is_success
        return False


@contextlib.contextmanager
def gateways(blueprint: Blueprint, number: int) -> Iterator[Sequence[Gateway]]:
    """So many, each of which has found a router."""
    config = GatewayConfig(model=blueprint.model_dir, model_name=blueprint.model_name)
    actor: Any = ray.remote(num_cpus=0, max_restarts=0)(GatewayHost)
    handles = [actor.remote(config) for _ in range(number)]
    try:
        told = ray.get([handle.about.remote() for handle in handles], timeout=_START_S)
        found = [Gateway(url=url, pid=pid) for url, pid in told]
        for gateway in found:
            wait_until(lambda gateway=gateway: gateway.healthy, "a gateway with a router")
        yield found
    finally:
        for handle in handles:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(handle.stop.remote(), timeout=20)
            ray.kill(handle)
