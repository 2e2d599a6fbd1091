"""The controller as a named Ray actor."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from prometheus_client import CollectorRegistry

from cluster.blueprint import Blueprint
from cluster.controller import Controller
from cluster.errors import ClusterError, StartError
from cluster.fleet import Phase, Role, new_fleet
from cluster.gateways import Gateways
from cluster.journal import next_term
from cluster.members.actor import RayActors
from cluster.members.setup import reachable
from cluster.probe import GrpcLink
from cluster.reconcile import Rules
from cluster.views import Process, placement_view, status_view, targets_view
from monitoring.metrics import ControllerMetrics
from monitoring.server import ListenError, MetricsServer

CONTROLLER = "orrery-controller"
# Long enough for `cluster.launch` to ask and hear what is wrong.
_PAUSE_S = 3.0

_log = logging.getLogger(__name__)


class ControllerHost:
    """Runs the controller in a thread with an event loop, and its admin pages in another.

    Its work starts with the constructor, since that is all that Ray runs again after a crash. A
    constructor that raises would be the end for Ray, so what hinders it is told to whoever asks,
    and after a pause the process ends and Ray starts the next one.
    """

    def __init__(self, blueprint: Blueprint, journal: Path) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
        self._obstacle = ""
        try:
            self._begin(blueprint, journal)
        except (ClusterError, ListenError) as error:
            _log.critical("the controller cannot work: %s", error)
            self._obstacle = str(error)
            threading.Thread(target=_end_process_after_a_pause, daemon=True).start()

    def _begin(self, blueprint: Blueprint, journal: Path) -> None:
        config = blueprint.config
        self._host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._gateways = Gateways(reachable(f"{config.http.host}:{config.http.port}", self._host))
        self._actors = RayActors(blueprint)
        registry = CollectorRegistry()
        self._controller = Controller(
            fleet=new_fleet(
                blueprint.plan.owners, blueprint.workers, blueprint.routers, next_term(journal)
            ),
            rules=Rules(
                misses=config.controller.misses,
                start_timeout_s=config.controller.start_timeout_s,
                strict=config.exactness == "strict",
            ),
            actors=self._actors,
            link=GrpcLink(),
            metrics=ControllerMetrics(registry),
            interval_s=config.controller.health_interval_s,
            timeout_s=config.controller.health_timeout_s,
        )
        self._admin = MetricsServer(
            registry,
            f"{config.controller.host}:{config.controller.port}",
            {
                "/status": self.status,
                "/placement": lambda: placement_view(self._controller.fleet),
                "/sd": lambda: targets_view(self._controller.fleet, self._everyone_else()),
            },
        )
        self._admin.start()
        self._loop = asyncio.new_event_loop()
        self._work = asyncio.run_coroutine_threadsafe(self._controller.run(), self._loop)
        self._work.add_done_callback(_end_process_on_failure)
        threading.Thread(target=self._loop.run_forever, name="controller", daemon=True).start()

    def status(self) -> dict[str, Any]:
        """As the admin page of that name.

        Raises:
            StartError: the controller cannot work, and why.
        """
        self._check()
        return status_view(self._controller.fleet, self._everyone_else())

    def routers(self, gateway: Mapping[str, Any] | None = None) -> list[str]:
        """Addresses of the routers that can take requests. Gateways ask this again and again.

        Args:
            gateway: who asks: its `node`, `host`, `pid` and `metrics_address`.

        Raises:
            StartError: as in `status`.
        """
        self._check()
        if gateway is not None:
            self._gateways.heard(gateway, time.monotonic())
        return [
            member.address
            for member in self._controller.fleet.of(Role.ROUTER)
            if member.phase is Phase.READY
        ]

    def stop(self) -> None:
        """Ends every member and the controller's work; the actor itself is left to be killed."""
        if self._obstacle:
            return
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._admin.stop()

    def _check(self) -> None:
        if self._obstacle:
            raise StartError(self._obstacle)

    async def _stop(self) -> None:
        self._work.cancel()
        await self._controller.stop_members()
        await self._actors.close()

    def _everyone_else(self) -> tuple[Process, ...]:
        address = reachable(self._admin.address, self._host)
        me = Process(
            process_id="controller",
            role="controller",
            node=ray.get_runtime_context().get_node_id(),
            pid=os.getpid(),
            address=address,
            metrics_address=address,
            state="ready",
        )
        return (me, *self._gateways.living(time.monotonic()))


ControllerActor: Any = ray.remote(ControllerHost)


def _end_process_after_a_pause() -> None:
    time.sleep(_PAUSE_S)
    os._exit(1)


def _end_process_on_failure(work: Any) -> None:
    """A controller whose loop broke must not pretend to live; Ray starts the next one."""
    if not work.cancelled() and (error := work.exception()) is not None:
        _log.critical("the controller's loop broke", exc_info=error)
        os._exit(1)
