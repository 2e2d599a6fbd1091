"""The controller as a named Ray actor."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
from prometheus_client import CollectorRegistry

from cluster.blueprint import Blueprint
from cluster.config_reader import to_tree
from cluster.controller import Controller
from cluster.errors import ClusterError, StartError
from cluster.events import Chronicle
from cluster.fleet import Fleet, Role, new_fleet
from cluster.gateways import Gateways
from cluster.gauges import Gauges
from cluster.journal import JournalError, keep, newest_term, next_term, recall
from cluster.members.actor import RayActors
from cluster.members.setup import reachable
from cluster.probe import GrpcLink
from cluster.request_events import HttpPages, RequestEvents
from cluster.requests import PATHS, parse_ask, token_of
from cluster.saved import resume, save
from cluster.settings import autoscaler_of, pace_of, rules_of
from cluster.signals import Note
from cluster.views import Process, placement_view, status_view, targets_view
from monitoring.metrics import ControllerMetrics
from monitoring.server import Commands, ListenError, MetricsServer, RefusedError

CONTROLLER = "orrery-controller"
# Long enough for `cluster.launch` to ask and hear what is wrong.
_PAUSE_S = 3.0
_ASK_S = 30.0

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
        self._config = to_tree(blueprint.config)
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
        fleet = self._fleet(blueprint, journal)
        self._chronicle = Chronicle(
            journal.with_name("events.jsonl"), fleet.placement.epoch.term, time.time
        )
        self._gauges = Gauges(ControllerMetrics(registry))
        self._controller = Controller(
            fleet=fleet,
            rules=rules_of(blueprint),
            actors=self._actors,
            link=GrpcLink(),
            gauges=self._gauges,
            pace=pace_of(config),
            chronicle=self._chronicle,
            autoscaler=autoscaler_of(config),
            keep=partial(_keep, journal, self._run),
            leads=partial(_leads, journal, fleet.placement.epoch.term),
        )
        self._admin = MetricsServer(
            registry,
            f"{config.controller.host}:{config.controller.port}",
            {
                "/status": self.status,
                "/placement": lambda: placement_view(self._controller.fleet),
                "/events": lambda: [entry.as_json() for entry in self._chronicle.entries()],
                "/sd": lambda: targets_view(self._controller.fleet, self._everyone_else()),
            },
            commands=Commands(
                token=token_of(journal.parent, make=True),
                paths={path: partial(self._post, path) for path in PATHS},
            ),
        )
        self._request_events = RequestEvents(
            HttpPages(), self._noting, self._add_event, self._chronicle.entries()
        )
        self._loop = asyncio.new_event_loop()
        self._admin.start()
        self._work = asyncio.run_coroutine_threadsafe(self._controller.run(), self._loop)
        self._work.add_done_callback(_end_process_on_failure)
        self._collecting = asyncio.run_coroutine_threadsafe(self._request_events.run(), self._loop)
        self._collecting.add_done_callback(_say_failure)
        threading.Thread(target=self._loop.run_forever, name="controller", daemon=True).start()

    def _fleet(self, blueprint: Blueprint, journal: Path) -> Fleet:
        """The fleet of a former controller of this very actor, else that of the blueprint."""
        term, spares = next_term(journal), blueprint.config.experts.spares
        planned = new_fleet(
            blueprint.plan.owners, blueprint.workers, blueprint.routers, term, spares
        )
        # It stays the same when Ray starts the actor again.
        self._run = str(ray.get_runtime_context().get_actor_id())
        saved = recall(journal, self._run)
        if saved is None:
            return planned
        try:
            return resume(saved, planned)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _log.error("the journal's fleet cannot be read, a new one is made: %r", error)
            return planned

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Has something done, as one of `cluster.requests.PATHS`; returns before it is.

        Raises:
            ClusterError: it cannot be done, and why.
        """
        self._check()
        work = self._controller.ask(parse_ask(path, body))
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_ASK_S)
        return self.status()

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.ask(path, body)
        except ClusterError as error:
            raise RefusedError(str(error)) from error

    def config(self) -> dict[str, Any]:
        """What it was started with, as `cluster.config_reader.to_tree` gives it."""
        return self._config

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
            StartError: as in `status`; or this controller has just taken over and does not know
                yet, so that whoever asks goes on with those that he knows.
        """
        self._check()
        if gateway is not None:
            self._gateways.heard(gateway, time.monotonic())
        fleet = self._controller.fleet
        if fleet.resumed and not fleet.begun:
            raise StartError("this controller has just taken over")
        return [member.address for member in fleet.takers]

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
        self._collecting.cancel()
        await self._controller.stop_members()
        await self._actors.close()

    def _noting(self) -> dict[str, str]:
        """Who keeps notes of requests: name to address of /metrics."""
        routers = self._controller.fleet.of(Role.ROUTER)
        found = {member.member_id: member.metrics_address for member in routers}
        for gateway in self._gateways.living(time.monotonic()):
            found[gateway.process_id] = gateway.metrics_address
        return {name: address for name, address in found.items() if address}

    def _add_event(self, note: Note) -> None:
        self._gauges.count(note)
        self._chronicle.add(note)

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


def _keep(journal: Path, run: str, fleet: Fleet) -> None:
    try:
        if not keep(journal, fleet.placement.epoch.term, run, save(fleet)):
            _log.warning("a controller of a higher term keeps the journal now")
    except JournalError as error:
        # What is asked for would be forgotten with this controller; it goes on meanwhile.
        _log.error("%s", error)


def _leads(journal: Path, term: int) -> bool:
    try:
        return newest_term(journal) <= term
    except JournalError as error:
        _log.error("%s", error)
        return True


def _end_process_after_a_pause() -> None:
    time.sleep(_PAUSE_S)
    os._exit(1)


def _end_process_on_failure(work: Any) -> None:
    """A controller whose loop broke must not pretend to live; Ray starts the next one."""
    if not work.cancelled() and (error := work.exception()) is not None:
        _log.critical("the controller's loop broke", exc_info=error)
        os._exit(1)


def _say_failure(work: Any) -> None:
    """The fleet is controlled all the same, though its events lack the requests."""
    if not work.cancelled() and (error := work.exception()) is not None:
        _log.critical("events of requests are not collected any more", exc_info=error)
