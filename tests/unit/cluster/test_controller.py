"""The controller's hands, with members that are not there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from cluster.controller import Controller
from cluster.errors import StartError
from cluster.fleet import Member, Report, new_fleet
from cluster.reconcile import Launched, Rules
from monitoring.metrics import ControllerMetrics
from tests.support.deadline import run_async, wait_until_async
from wire.errors import DeadlineExceededError, StaleEpochError, UnavailableError
from wire.placement import Epoch, Placement

OWNERS = {1: (("expert-0",), ("expert-1",)), 2: (("expert-1",), ("expert-0",))}


class World:
    """Processes, and what routers were told."""

    def __init__(self) -> None:
        self.alive: dict[str, int] = {}
        self.silent: set[str] = set()
        self.refuse: dict[str, int] = {}
        self.epochs: dict[str, Epoch] = {}
        self.log: list[str] = []
        self.starts = 0
        self.closed = False

    async def launch(self, member: Member) -> Launched:
        name = member.member_id
        if self.refuse.get(name, 0):
            self.refuse[name] -= 1
            self.log.append(f"refused {name}")
            raise StartError("no room")
        self.starts += 1
        self.alive[name] = self.starts
        self.epochs.pop(name, None)
        self.log.append(f"launched {name}")
        return Launched(
            member_id=name,
            address=f"{name}:{self.starts}",
            metrics_address="m:1",
            node="n",
            pid=self.starts,
        )

    async def kill(self, member_id: str) -> None:
        self.alive.pop(member_id, None)
        self.log.append(f"killed {member_id}")

    async def is_alive(self, member_id: str) -> bool:
        return member_id in self.alive

    async def describe(self, member: Member, timeout_s: float) -> Report:
        self._reach(member)
        epoch = self.epochs.get(member.member_id, Epoch(term=0, counter=0))
        return Report(state="ready", fingerprint="f", epoch=epoch)

    async def publish(self, router: Member, placement: Placement, timeout_s: float) -> Report:
        self._reach(router)
        known = self.epochs.get(router.member_id, Epoch(term=0, counter=0))
        if placement.epoch < known:
            raise StaleEpochError("older")
        self.epochs[router.member_id] = placement.epoch
        self.log.append(f"placed {' '.join(placement.workers)}")
        return Report(state="ready", fingerprint="f", epoch=placement.epoch)

    async def close(self) -> None:
        self.closed = True

    def _reach(self, member: Member) -> None:
        if member.member_id in self.silent:
            raise DeadlineExceededError("silence")
        if member.address != f"{member.member_id}:{self.alive.get(member.member_id)}":
            raise UnavailableError("nobody there")


class Actors:
    """`World`'s processes under the names that the controller's protocol has."""

    def __init__(self, world: World) -> None:
        self.launch = world.launch
        self.kill = world.kill
        self.alive = world.is_alive


def with_controller(
    world: World, play: Callable[[Controller], Awaitable[None]]
) -> CollectorRegistry:
    registry = CollectorRegistry()

    async def scene() -> None:
        controller = Controller(
            fleet=new_fleet(OWNERS, ["expert-0", "expert-1"], ["router-0"], term=3),
            rules=Rules(misses=3, start_timeout_s=5),
            actors=Actors(world),
            link=world,
            metrics=ControllerMetrics(registry),
            interval_s=0.01,
            timeout_s=0.5,
        )
        work = asyncio.create_task(controller.run())
        try:
            await wait_until_async(lambda: controller.fleet.settled, "a settled fleet", 5)
            await play(controller)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        assert work.cancelled()
        assert world.closed

    run_async(scene(), 20)
    return registry


def test_a_killed_worker_comes_back_in_a_higher_epoch() -> None:
    world = World()

    async def play(controller: Controller) -> None:
        before = controller.fleet.placement.epoch
        del world.alive["expert-1"]
        world.log.clear()
        await wait_until_async(
            lambda: controller.fleet.settled and controller.fleet.placement.epoch > before,
            "the worker's return",
            5,
        )
        assert sorted(world.log[:3]) == ["killed expert-1", "launched expert-1", "placed expert-0"]
        assert world.log.index("killed expert-1") < world.log.index("launched expert-1")
        assert world.log[3:] == ["placed expert-0 expert-1"]
        assert controller.fleet.placement.epoch == Epoch(term=3, counter=before.counter + 2)

    registry = with_controller(world, play)
    assert registry.get_sample_value("orrery_controller_restarts_total", {"role": "expert"}) == 1
    assert registry.get_sample_value("orrery_controller_epoch", {"part": "term"}) == 3
    assert registry.get_sample_value("orrery_controller_workers", {"state": "ready"}) == 2


def test_a_silent_worker_is_killed_and_replaced() -> None:
    world = World()

    async def play(controller: Controller) -> None:
        world.silent.add("expert-0")
        await wait_until_async(lambda: "killed expert-0" in world.log, "the kill", 5)
        world.silent.clear()
        await wait_until_async(lambda: controller.fleet.settled, "the return", 5)
        assert controller.fleet.members["expert-0"].restarts == 1

    with_controller(world, play)


def test_a_start_that_fails_is_tried_again() -> None:
    world = World()
    world.refuse["expert-0"] = 1

    async def play(controller: Controller) -> None:
        assert controller.fleet.members["expert-0"].restarts == 1
        assert world.log.count("refused expert-0") == 1

    with_controller(world, play)


def test_a_restarted_router_is_told_again() -> None:
    world = World()

    async def play(controller: Controller) -> None:
        del world.alive["router-0"]
        await wait_until_async(
            lambda: controller.fleet.settled and controller.fleet.members["router-0"].restarts == 1,
            "its return",
            5,
        )
        assert world.epochs["router-0"] == controller.fleet.placement.epoch

    with_controller(world, play)


def test_members_end_routers_first() -> None:
    world = World()

    async def play(controller: Controller) -> None:
        world.log.clear()
        await controller.stop_members()
        assert world.log == ["killed router-0", "killed expert-0", "killed expert-1"]

    with_controller(world, play)
