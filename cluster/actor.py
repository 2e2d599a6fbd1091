"""The controller as a named Ray actor, and its members as Ray actors.

Members are detached: they outlive a controller that dies, and the next one finds them by name.
"""

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
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.blueprint import Blueprint
from cluster.controller import Controller
from cluster.errors import StartError
from cluster.fleet import Member, Phase, Role, new_fleet
from cluster.gateways import Gateways
from cluster.journal import next_term
from cluster.members import actor_options, bundle, reachable, router_config, worker_config
from cluster.probe import GrpcLink
from cluster.reconcile import Launched, Rules
from cluster.views import Process, placement_view, status_view, targets_view
from experts_service.actor import ExpertWorkerActor
from monitoring.metrics import ControllerMetrics
from monitoring.server import MetricsServer
from router_service.actor import RouterActor

NAMESPACE = "orrery"
CONTROLLER = "orrery-controller"
_GROUP = "orrery-experts"
_STOP_S = 5.0
_ALIVE_S = 1.0
_FIND_S = 10.0

_log = logging.getLogger(__name__)


class RayActors:
    """Starts and ends members as Ray actors; expert workers spread over the nodes."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._handles: dict[str, Any] = {}
        self._up: set[str] = set()
        self._group: PlacementGroup | None = None
        self._group_lock = asyncio.Lock()

    async def launch(self, member: Member) -> Launched:
        """Starts the member's actor, or takes over the living one of its name.

        Raises:
            StartError: Ray cannot place it in time, or it fails on its way up.
        """
        timeout_s = self._blueprint.config.controller.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                handle = await asyncio.to_thread(self._find, member.member_id)
                if handle is None:
                    handle = await self._create(member)
                self._handles[member.member_id] = handle
                about = await _result(handle.start.remote())
                node = str(await _result(handle.node.remote()))
                self._up.add(member.member_id)
        except TimeoutError as error:
            raise StartError(f"was not up after {timeout_s:.0f} s") from error
        except RayError as error:
            raise StartError(f"did not come up: {str(error).strip().splitlines()[-1]}") from error
        host = await asyncio.to_thread(_host_of, node)
        return Launched(
            member_id=member.member_id,
            address=reachable(about["address"], host),
            metrics_address=reachable(about["metrics_address"], host),
            node=node,
            pid=int(about["pid"]),
        )

    async def kill(self, member_id: str) -> None:
        """Lets an actor that came up stop by itself for a moment, then kills it."""
        was_up = member_id in self._up
        self._up.discard(member_id)
        handle = self._handles.pop(member_id, None)
        if handle is None:
            handle = await asyncio.to_thread(self._find, member_id)
        if handle is None:
            return
        if was_up:
            try:
                async with asyncio.timeout(_STOP_S):
                    await _result(handle.stop.remote())
            except (TimeoutError, RayError) as error:
                _log.info("%s is killed: %s", member_id, type(error).__name__)
        await asyncio.to_thread(ray.kill, handle)
        await asyncio.to_thread(self._await_gone, member_id)

    async def alive(self, member_id: str) -> bool:
        handle = self._handles.get(member_id)
        if handle is None:
            return False
        try:
            async with asyncio.timeout(_ALIVE_S):
                await _result(handle.node.remote())
        except RayError:
            return False
        except TimeoutError:
            return True
        return True

    async def close(self) -> None:
        """Gives the placement group's resources back."""
        if self._group is not None:
            await asyncio.to_thread(remove_placement_group, self._group)

    def _find(self, member_id: str) -> Any:
        try:
            return ray.get_actor(f"orrery-{member_id}", namespace=NAMESPACE)
        except ValueError:
            return None

    def _await_gone(self, member_id: str) -> None:
        """Ray frees a killed actor's name a little later; a new one of that name must wait."""
        pause = threading.Event()
        for _ in range(100):
            if self._find(member_id) is None:
                return
            pause.wait(0.05)

    async def _create(self, member: Member) -> Any:
        options: dict[str, Any] = {
            "name": f"orrery-{member.member_id}",
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "max_restarts": 0,
            **actor_options(member.role, self._blueprint.config),
        }
        if member.role is Role.ROUTER:
            return RouterActor.options(**options).remote(
                router_config(self._blueprint, member.member_id)
            )
        group = await self._spread()
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            placement_group=group,
            placement_group_bundle_index=self._blueprint.workers.index(member.member_id),
        )
        return ExpertWorkerActor.options(**options).remote(worker_config(self._blueprint, member))

    async def _spread(self) -> PlacementGroup:
        async with self._group_lock:
            if self._group is None:
                self._group = await asyncio.to_thread(self._find_group)
            group = self._group
            await _result(group.ready())
            return group

    def _find_group(self) -> PlacementGroup:
        """The group of a former controller, or a new one. Best effort: one node takes them all."""
        try:
            group: PlacementGroup = get_placement_group(_GROUP)
        except ValueError:
            group = placement_group(
                [bundle(self._blueprint.config)] * len(self._blueprint.workers),
                strategy="SPREAD",
                name=_GROUP,
                lifetime="detached",
            )
        return group


class ControllerHost:
    """Runs the controller in a thread with an event loop, and its admin pages in another.

    Its work starts with the constructor, since that is all that Ray runs again after a crash.
    """

    def __init__(self, blueprint: Blueprint, journal: Path) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
        config = blueprint.config
        self._gateways = Gateways(f"{config.http.host}:{config.http.port}")
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
        """As the admin page of that name."""
        return status_view(self._controller.fleet, self._everyone_else())

    def routers(self, gateway: Mapping[str, Any] | None = None) -> list[str]:
        """Addresses of the routers that can take requests. Gateways ask this again and again.

        Args:
            gateway: who asks: its `node`, `host`, `pid` and `metrics_address`.
        """
        if gateway is not None:
            self._gateways.heard(gateway, time.monotonic())
        return [
            member.address
            for member in self._controller.fleet.of(Role.ROUTER)
            if member.phase is Phase.READY
        ]

    def stop(self) -> None:
        """Ends every member and the controller's work; the actor itself is left to be killed."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._admin.stop()

    async def _stop(self) -> None:
        self._work.cancel()
        await self._controller.stop_members()
        await self._actors.close()

    def _everyone_else(self) -> tuple[Process, ...]:
        me = Process(
            process_id="controller",
            role="controller",
            node=ray.get_runtime_context().get_node_id(),
            pid=os.getpid(),
            address=self._admin.address,
            metrics_address=self._admin.address,
            state="ready",
        )
        return (me, *self._gateways.living(time.monotonic()))


ControllerActor: Any = ray.remote(ControllerHost)


def _end_process_on_failure(work: Any) -> None:
    """A controller whose loop broke must not pretend to live; Ray starts the next one."""
    if not work.cancelled() and (error := work.exception()) is not None:
        _log.critical("the controller's loop broke", exc_info=error)
        os._exit(1)


async def _result(ref: Any) -> Any:
    return await asyncio.wrap_future(ref.future())


def _host_of(node: str) -> str:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for known in nodes:
        if known["NodeID"] == node or known["NodeManagerAddress"] == node:
            return str(known["NodeManagerAddress"])
    return ""
