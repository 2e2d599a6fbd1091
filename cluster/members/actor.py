"""Members as Ray actors.

They are detached: they outlive a controller that dies, and the next one finds them by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.blueprint import Blueprint
from cluster.errors import StartError
from cluster.fleet import Member, Role
from cluster.members.setup import (
    actor_options,
    at_most_one_a_node,
    bundle,
    further_member,
    labels,
    reachable,
    router_config,
    worker_config,
)
from cluster.signals import Launched
from experts_service.actor import ExpertWorkerActor
from router_service.actor import RouterActor

NAMESPACE = "orrery"
_PREFIX = "orrery-"
_GROUP = "orrery-experts"
_STOP_S = 5.0
_ALIVE_S = 1.0

_log = logging.getLogger(__name__)


class RayActors:
    """Starts and ends members as Ray actors; expert workers spread over the nodes."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._handles: dict[str, Any] = {}
        self._up: set[str] = set()
        self._group: PlacementGroup | None = None
        self._group_lock = asyncio.Lock()

    async def launch(self, member: Member, avoid: frozenset[str], polite: bool) -> Launched:
        """Starts the member's actor, or takes over the living one of its name.

        Args:
            avoid: nodes that are not taken by expert workers besides the planned ones.
            polite: it leaves the processors to others until it is ready.

        Raises:
            StartError: Ray cannot place it in time, or it fails on its way up.
        """
        timeout_s = self._blueprint.config.controller.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                handle = await asyncio.to_thread(self._find, member.member_id)
                if handle is None:
                    handle = await self._create(member, avoid, polite)
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

    async def present(self, member_id: str) -> bool:
        return await asyncio.to_thread(self._find, member_id) is not None

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

    async def leaving_nodes(self) -> frozenset[str]:
        """Nodes that Ray drains, e.g. since their machine is taken away soon."""
        try:
            return frozenset(await asyncio.to_thread(_draining))
        except RayError as error:
            _log.info("Ray does not tell which nodes leave: %s", error)
            return frozenset()

    async def close(self) -> None:
        """Gives the placement group's resources back."""
        if self._group is not None:
            await asyncio.to_thread(remove_placement_group, self._group)

    def _find(self, member_id: str) -> Any:
        try:
            return ray.get_actor(f"{_PREFIX}{member_id}", namespace=NAMESPACE)
        except ValueError:
            return None

    def _await_gone(self, member_id: str) -> None:
        """Ray frees a killed actor's name a little later; a new one of that name must wait."""
        pause = threading.Event()
        for _ in range(100):
            if self._find(member_id) is None:
                return
            pause.wait(0.05)

    async def _create(self, member: Member, avoid: frozenset[str], polite: bool) -> Any:
        options: dict[str, Any] = {
            "name": f"{_PREFIX}{member.member_id}",
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "max_restarts": 0,
            **actor_options(member.role, self._blueprint.config),
        }
        planned = (*self._blueprint.workers, *self._blueprint.routers)
        if member.member_id not in planned or (avoid and member.role is Role.ROUTER):
            options |= further_member(member.role, self._blueprint.config, avoid)
        if member.role is Role.ROUTER:
            return RouterActor.options(**options).remote(
                router_config(self._blueprint, member.member_id, polite=polite)
            )
        if member.member_id in self._blueprint.workers:
            group = await self._spread()
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                placement_group=group,
                placement_group_bundle_index=self._blueprint.workers.index(member.member_id),
            )
        config = worker_config(self._blueprint, member, polite=polite)
        return ExpertWorkerActor.options(**options).remote(config)

    async def _spread(self) -> PlacementGroup:
        async with self._group_lock:
            if self._group is None:
                self._group = await asyncio.to_thread(self._find_group)
            group = self._group
            await _result(group.ready())
            return group

    def _find_group(self) -> PlacementGroup:
        """The group of a former controller, or a new one. Without fixed ports it spreads as far as
        there is room: one node may take them all."""
        try:
            group: PlacementGroup = get_placement_group(_GROUP)
        except ValueError:
            config, count = self._blueprint.config, len(self._blueprint.workers)
            selector = labels(config.experts.nodes)
            group = placement_group(
                [bundle(config)] * count,
                strategy="STRICT_SPREAD" if at_most_one_a_node(config.experts) else "SPREAD",
                name=_GROUP,
                lifetime="detached",
                bundle_label_selector=[selector] * count if selector else None,
            )
        return group


def sweep() -> None:
    """Kills what a controller that could not stop its members has left on the Ray cluster."""
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(_PREFIX):
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(actor["name"], namespace=NAMESPACE))
    with contextlib.suppress(ValueError):
        remove_placement_group(get_placement_group(_GROUP))


async def _result(ref: Any) -> Any:
    return await asyncio.wrap_future(ref.future())


def _draining() -> list[str]:
    # Ray Serve asks the same way; Ray has no public way to ask.
    from ray._private.state import state

    return list(state.get_draining_nodes())


def _host_of(node: str) -> str:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for known in nodes:
        if known["NodeID"] == node or known["NodeManagerAddress"] == node:
            return str(known["NodeManagerAddress"])
    return ""
