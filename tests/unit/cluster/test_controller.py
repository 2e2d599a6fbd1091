"""The controller's hands, with members that are not there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cluster import planner
from cluster.controller import Controller
from cluster.errors import ClusterError, StartError
from cluster.events import Chronicle
from cluster.fleet import Fleet, Member, Report, new_fleet
from cluster.gauges import Gauges
from cluster.holdings import Experts, minus, plus
from cluster.loads import Tokens
from cluster.rules import Pace, Rules
from cluster.saved import resume, save
from cluster.signals import Launched, ScaleAsked
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
        self.terms: dict[str, int] = {}
        self.log: list[str] = []
        self.starts = 0
        self.start_s = 0.0
        self.stay = False
        self.closed = False
        self.held: dict[str, Experts] = {}
        self.leaving: frozenset[str] = frozenset()
        self.asked: dict[str, Tokens] = {}

    async def launch(self, member: Member, avoid: frozenset[str], polite: bool) -> Launched:
        name = member.member_id
        if self.refuse.get(name, 0):
            self.refuse[name] -= 1
            self.log.append(f"refused {name}")
            raise StartError("no room")
        if self.stay and name in self.alive:
            return self._launched(name)
        await asyncio.sleep(self.start_s)
        self.starts += 1
        self.held[name] = member.experts
        self.alive[name] = self.starts
        self.epochs.pop(name, None)
        self.log.append(f"launched {name}")
        return self._launched(name)

    async def kill(self, member_id: str) -> None:
        self.alive.pop(member_id, None)
        self.log.append(f"killed {member_id}")

    async def is_alive(self, member_id: str) -> bool:
        return member_id in self.alive

    async def describe(self, member: Member, term: int, timeout_s: float) -> Report:
        self._reach(member)
        if self.terms.get(member.member_id, 0) < term:
            self.terms[member.member_id] = term
            self.log.append(f"{member.member_id} heard {term}")
        epoch = self.epochs.get(member.member_id, Epoch(term=0, counter=0))
        held = self.held.get(member.member_id)
        term = self.terms[member.member_id]
        return Report(state="ready", fingerprint="f", epoch=epoch, term=term, held=held)

    async def publish(self, router: Member, placement: Placement, timeout_s: float) -> Report:
        self._reach(router)
        known = self.epochs.get(router.member_id, Epoch(term=0, counter=0))
        if placement.epoch < known or placement.epoch.term < self.terms[router.member_id]:
            raise StaleEpochError("older")
        self.epochs[router.member_id] = placement.epoch
        self.log.append(f"placed {' '.join(placement.workers)}")
        return Report(state="ready", fingerprint="f", epoch=placement.epoch)

    async def drain(self, router: Member, deadline_s: float) -> bool:
        self._reach(router)
        self.log.append(f"drained {router.member_id}")
        return True

    async def broken(self, member: Member) -> None:
        await asyncio.sleep(100)

    async def load(self, worker: Member, epoch: Epoch, experts: Experts) -> None:
        self._command(worker, epoch)
        self.held[worker.member_id] = plus(self.held[worker.member_id], experts)
        self.log.append(f"{worker.member_id} loaded")

    async def evict(self, worker: Member, epoch: Epoch, experts: Experts) -> None:
        self._command(worker, epoch)
        self.held[worker.member_id] = minus(self.held[worker.member_id], experts)
        self.log.append(f"{worker.member_id} evicted")

    async def tokens(self, router: Member, timeout_s: float) -> Tokens:
        return self.asked.get(router.member_id, {})

    async def busy_seconds(self, worker: Member, timeout_s: float) -> float:
        return 0.0

    async def leaving_nodes(self) -> frozenset[str]:
        return self.leaving

    async def close(self) -> None:
        self.closed = True

    def _launched(self, name: str) -> Launched:
        start = self.alive[name]
        return Launched(
            member_id=name,
            address=f"{name}:{start}",
            metrics_address="m:1",
            node="n",
            pid=start,
        )

    def _command(self, worker: Member, epoch: Epoch) -> None:
        self._reach(worker)
        if epoch.term < self.terms[worker.member_id]:
            raise StaleEpochError("older")

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
        self.present = world.is_alive
        self.leaving_nodes = world.leaving_nodes


PLANNED = new_fleet(OWNERS, ["expert-0", "expert-1"], ["router-0"], term=3)


def controller_of(
    world: World,
    fleet: Fleet,
    registry: CollectorRegistry,
    leads: Callable[[], bool] = lambda: True,
    misses: int = 3,
    keep: Callable[[Fleet], None] = lambda fleet: None,
) -> Controller:
    return Controller(
        fleet=fleet,
        rules=Rules(misses=misses, start_timeout_s=5, drain_s=0.02),
        actors=Actors(world),
        link=world,
        gauges=Gauges(ControllerMetrics(registry)),
        pace=Pace(interval_s=0.01, timeout_s=0.5, weigh_s=0.05, window_s=1, nodes_s=0.02),
        chronicle=Chronicle(None, fleet.placement.epoch.term, lambda: 0.0),
        keep=keep,
        leads=leads,
    )


def with_controller(
    world: World,
    play: Callable[[Controller], Awaitable[None]],
    misses: int = 3,
    keep: Callable[[Fleet], None] = lambda fleet: None,
) -> CollectorRegistry:
    registry = CollectorRegistry()

    async def scene() -> None:
        controller = controller_of(world, PLANNED, registry, misses=misses, keep=keep)
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


def test_a_killed_workers_experts_are_loaded_elsewhere_and_come_home() -> None:
    world = World()

    async def play(controller: Controller) -> None:
        before = controller.fleet.placement.epoch
        held = dict(world.held)
        # Longer than it takes to load its experts elsewhere, as of real processes.
        world.start_s = 0.5
        del world.alive["expert-1"]
        world.log.clear()
        await wait_until_async(
            lambda: controller.fleet.settled and "expert-0 evicted" in world.log,
            "the worker's return",
            5,
        )
        order = ["killed expert-1", "launched expert-1", "placed expert-0 expert-1"]
        assert [line for line in world.log if line in order] == order
        assert world.log.index("expert-0 loaded") < world.log.index("placed expert-0 expert-1")
        assert world.log[-1] == "expert-0 evicted"
        assert world.held == held
        assert controller.fleet.placement.epoch > before
        assert controller.fleet.placement.owners == OWNERS

    registry = with_controller(world, play)
    value = registry.get_sample_value
    assert value("orrery_controller_restarts_total", {"role": "expert"}) == 1
    assert value("orrery_controller_epoch", {"part": "term"}) == 3
    assert value("orrery_controller_workers", {"state": "ready"}) == 2
    assert value("orrery_controller_recovery_seconds_count") == 1
    assert value("orrery_controller_copies_loaded_total", {"reason": "repair"}) == 2
    assert value("orrery_controller_events_total", {"kind": "member_died"}) == 1


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


def test_a_controller_that_plans_still_hears_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A router dies while the planner works; the plan, for which that is
    nothing, is taken."""
    world, may_end = World(), threading.Event()
    repair = planner.repair

    def slow_repair(*args: Any, **more: Any) -> planner.Repair:
        assert may_end.wait(10)
        return repair(*args, **more)

    async def play(controller: Controller) -> None:
        monkeypatch.setattr(planner, "repair", slow_repair)
        world.start_s = 0.5
        del world.alive["expert-1"]
        await wait_until_async(lambda: controller.fleet.waits, "the question", 5)
        del world.alive["router-0"]
        router = controller.fleet.members["router-0"].restarts
        await wait_until_async(
            lambda: controller.fleet.members["router-0"].restarts > router, "the router's fall", 5
        )
        assert "expert-0 loaded" not in world.log
        may_end.set()
        await wait_until_async(lambda: "expert-0 loaded" in world.log, "the repair", 5)

    try:
        with_controller(world, play)
    finally:
        may_end.set()


def test_what_is_asked_is_kept_before_the_answer_and_before_a_process_starts() -> None:
    world = World()
    kept: list[int] = []

    def keep(fleet: Fleet) -> None:
        time.sleep(0.05)
        world.log.append(f"kept {len(fleet.members)}")
        kept.append(fleet.workers)

    async def play(controller: Controller) -> None:
        world.log.clear()
        await controller.ask(ScaleAsked(workers=3, by="t"))
        assert kept[-1] == 3
        await wait_until_async(lambda: "launched expert-2" in world.log, "the start", 5)
        assert world.log.index("kept 4") < world.log.index("launched expert-2")

    with_controller(world, play, keep=keep)


def test_members_end_routers_first() -> None:
    world = World()

    async def play(controller: Controller) -> None:
        world.log.clear()
        await controller.stop_members()
        # Whoever watches them may see to it that they are gone.
        ended = list(dict.fromkeys(world.log))
        assert ended == ["killed router-0", "killed expert-0", "killed expert-1"]

    with_controller(world, play)


def test_everybody_has_heard_an_heir_before_it_publishes_and_the_old_one_moves_nothing() -> None:
    world, patient = World(), 100_000
    # As a real process that Ray finds under its name: the heir starts nobody anew.
    world.stay = True

    async def play(old: Controller) -> None:
        planned = new_fleet(OWNERS, ["expert-0", "expert-1"], ["router-0"], term=4)
        world.silent.add("expert-1")
        world.log.clear()
        saved = resume(save(old.fleet), planned)
        heir = controller_of(world, saved, CollectorRegistry(), misses=patient)
        work = asyncio.create_task(heir.run())
        await wait_until_async(lambda: world.terms["expert-0"] == 4, "its first word", 5)
        await wait_until_async(lambda: old.fleet.superseded, "the old one's insight", 5)
        before = len(world.log)
        with pytest.raises(ClusterError, match="another controller"):
            await old.ask(ScaleAsked(workers=1, by="t"))
        world.silent.clear()
        await wait_until_async(lambda: heir.fleet.settled, "a settled fleet", 5)
        placed = next(n for n, line in enumerate(world.log) if line.startswith("placed"))
        heard = [f"{name} heard 4" for name in ("expert-0", "expert-1", "router-0")]
        assert all(world.log.index(line) < placed for line in heard), world.log
        assert not [line for line in world.log[:before] if line.startswith("placed")]
        assert world.epochs["router-0"].term == 4
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    with_controller(world, play, patient)


def test_a_controller_that_was_followed_ends_no_process() -> None:
    async def scene() -> None:
        world, leading = World(), True
        controller = controller_of(world, PLANNED, CollectorRegistry(), lambda: leading)
        work = asyncio.create_task(controller.run())
        await wait_until_async(lambda: controller.fleet.settled, "a settled fleet", 5)
        leading = False
        world.log.clear()
        world.silent |= {"expert-0", "expert-1", "router-0"}
        await wait_until_async(lambda: controller.fleet.superseded, "its insight", 5)
        await asyncio.sleep(0.05)
        assert world.log == []
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    run_async(scene(), 20)
