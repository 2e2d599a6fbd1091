"""Real workers and a real router of this process, changed by the controller while requests run."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from cluster.autoscale import Autoscaler
from cluster.controller import Controller
from cluster.events import Chronicle
from cluster.fleet import Fleet, Member, Role, new_fleet
from cluster.gauges import Gauges
from cluster.holdings import count, owned
from cluster.loads import Tokens
from cluster.probe import GrpcLink
from cluster.rules import Pace, Rules
from cluster.saved import resume, save
from cluster.signals import Ask, DrainAsked, Launched, RestartAsked, ScaleAsked
from experts_service.config import WorkerConfig
from experts_service.service import WorkerService
from kimi_k2.config import ModelConfig
from monitoring.metrics import ControllerMetrics
from router_service.config import RouterConfig
from router_service.service import RouterService
from tests.support.checkpoints import write_random_checkpoint
from tests.support.deadline import run_async, wait_until_async
from wire.clients.router import RouterClient
from wire.errors import StaleEpochError, UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.placement import Epoch

RULES = Rules(
    misses=20, start_timeout_s=60, drain_s=0.1, expert_bytes=1000, loads_bytes=4000, balance=False
)


class Services:
    """Members as services of this process."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self.running: dict[str, WorkerService | RouterService] = {}
        self._dead: list[WorkerService | RouterService] = []

    async def launch(self, member: Member, avoid: frozenset[str], polite: bool) -> Launched:
        service = self.running.get(member.member_id)
        if service is None:
            service = self._make(member)
            await service.start()
            self.running[member.member_id] = service
        return Launched(
            member_id=member.member_id,
            address=service.address,
            metrics_address=service.metrics_address,
            node="here",
            pid=id(service),
        )

    async def kill(self, member_id: str) -> None:
        service = self.running.pop(member_id, None)
        if service is not None:
            await service.stop()

    async def present(self, member_id: str) -> bool:
        return member_id in self.running

    async def alive(self, member_id: str) -> bool:
        return member_id in self.running

    async def leaving_nodes(self) -> frozenset[str]:
        return frozenset()

    async def lose(self, member_id: str) -> None:
        """Ends a member without a word to anybody."""
        await self.running.pop(member_id).stop()

    async def close(self) -> None:
        for service in reversed(self.running.values()):
            await service.stop()

    def _make(self, member: Member) -> WorkerService | RouterService:
        if member.role is Role.ROUTER:
            config = RouterConfig(
                router_id=member.member_id, model=self._model, threads=1, kv_blocks=64
            )
            return RouterService(config)
        return WorkerService(
            WorkerConfig(worker_id=member.member_id, model=self._model, experts=member.experts)
        )


class Stage:
    """A controller, its services, and a client that asks for the same answers again and again."""

    def __init__(
        self,
        services: Services,
        planned: Fleet,
        folder: Path,
        rules: Rules,
        scaler: Autoscaler | None,
    ) -> None:
        self.services = services
        self.folder = folder
        self.rules = rules
        self.scaler = scaler
        self.planned = planned
        self.expected: list[list[int]] = []
        self.answers = 0
        self._rounds = 0
        self._router = ""
        self.take_over(self.planned)

    def take_over(self, fleet: Fleet) -> None:
        term = fleet.placement.epoch.term
        self.chronicle = Chronicle(self.folder / "events.jsonl", term, time.time)
        self.controller = self.controller_of(fleet)
        self.work = asyncio.create_task(self.controller.run())

    def controller_of(self, fleet: Fleet) -> Controller:
        return Controller(
            fleet=fleet,
            rules=self.rules,
            actors=self.services,
            link=GrpcLink(),
            gauges=Gauges(ControllerMetrics(CollectorRegistry())),
            pace=Pace(interval_s=0.05, timeout_s=5, weigh_s=0.3, window_s=30),
            chronicle=self.chronicle,
            autoscaler=self.scaler,
        )

    @property
    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.chronicle.entries()]

    async def rest(self) -> None:
        """Returns once nothing changes any more."""

        def resting() -> bool:
            if self.work.done():
                self.work.result()
            fleet = self.controller.fleet
            return (
                fleet.settled
                and fleet.change is None
                and not fleet.restarts
                and not fleet.restless
                and all(m.phase == "ready" for m in fleet.members.values())
                and not any(m.leaving or m.resting for m in fleet.members.values())
                and len(fleet.serving) == fleet.workers
                and sum(m.spare for m in fleet.members.values()) == fleet.spares
            )

        await wait_until_async(resting, f"rest, after {self.kinds[-5:]}", 40)

    async def generate(self) -> list[list[int]]:
        """Forty greedy tokens of each of four prompts, asked at once."""
        self._rounds += 1
        for router in self.controller.fleet.takers[:1]:
            # A controller that has just taken over knows of none, and gateways keep theirs.
            self._router = router.address
        async with RouterClient(self._router) as client:
            stream = client.generate()
            answers = await asyncio.gather(
                *(self._one(stream, f"{self._rounds}-{n}", n) for n in range(4))
            )
            await stream.close()
        return answers

    async def _one(self, stream: object, request_id: str, seed: int) -> list[int]:
        outputs = await stream.submit(  # type: ignore[attr-defined]
            pb.Submit(
                request_id=request_id,
                prompt_token_ids=[5 + (seed * 7 + n) % 50 for n in range(12 + seed)],
                sampling=pb.SamplingParams(
                    max_tokens=40, top_p=1.0, repetition_penalty=1.0, ignore_eos=True
                ),
            )
        )
        tokens: list[int] = []
        async for output in outputs:
            assert not output.error.message, output.error.message
            tokens += output.token_ids
        return tokens

    async def meanwhile(self, what: Awaitable[object]) -> None:
        """Answers stay the same while `what` happens, and until all is at rest again."""

        async def happen() -> None:
            await what
            await self.rest()

        work = asyncio.create_task(happen())
        while not work.done():
            assert await self.generate() == self.expected
            self.answers += 4
        work.result()
        assert await self.generate() == self.expected


@contextlib.asynccontextmanager
async def stage(
    model: Path,
    folder: Path,
    workers: int,
    spares: int,
    rules: Rules,
    scaler: Autoscaler | None,
    tokens: Tokens | None,
) -> AsyncIterator[Stage]:
    config = ModelConfig.from_dir(model)
    owners = {
        layer: tuple((f"expert-{e * workers // len(order)}",) for e in np.argsort(order))
        for layer in config.moe_layers
        for order in [np.argsort(tokens[layer] if tokens else range(config.n_routed_experts))]
    }
    services = Services(model)
    planned = new_fleet(owners, [f"expert-{n}" for n in range(workers)], ["router-0"], 1, spares)
    play = Stage(services, planned, folder, rules, scaler)
    try:
        await play.rest()
        play.expected = await play.generate()
        yield play
    finally:
        play.work.cancel()
        await asyncio.gather(play.work, return_exceptions=True)
        await services.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(
        tmp_path_factory.mktemp("live") / "model", expert_format="float32"
    )


def perform(
    model: Path,
    folder: Path,
    play: Callable[[Stage], Awaitable[None]],
    *,
    spares: int = 1,
    balance: bool = False,
    scaler: Autoscaler | None = None,
    tokens: Tokens | None = None,
) -> None:
    """`tokens`: of each layer's experts; equally many are given to each worker, the hottest ones
    to the last."""

    async def scene() -> None:
        rules = dataclasses.replace(RULES, balance=balance, hysteresis=0.1)
        async with stage(model, folder, 3, spares, rules, scaler, tokens) as on_stage:
            await play(on_stage)

    run_async(scene(), 100)


def holds(play: Stage) -> dict[str, int]:
    return {m.member_id: count(m.experts) for m in play.controller.fleet.of(Role.EXPERT)}


@pytest.mark.parametrize("spares", [0, 1])
def test_a_lost_worker_costs_nobody_an_answer(model: Path, tmp_path: Path, spares: int) -> None:
    async def play(on: Stage) -> None:
        before = holds(on)
        await on.meanwhile(on.services.lose("expert-1"))
        assert on.kinds.index("member_died") < on.kinds.index("experts_recovered")
        after = holds(on)
        assert sum(after.values()) == sum(before.values())
        assert (after["expert-1"] == 0) is (spares == 1)

    perform(model, tmp_path, play, spares=spares)


def test_asks_are_carried_out_under_load_and_nothing_is_ever_lost(
    model: Path, tmp_path: Path
) -> None:
    async def play(on: Stage) -> None:
        asks: list[Ask] = [
            ScaleAsked(workers=5, by="test"),
            RestartAsked(by="test"),
            DrainAsked(names=frozenset({"expert-0"}), by="test"),
            ScaleAsked(workers=2, by="test"),
        ]
        for ask in asks:
            await on.meanwhile(on.controller.ask(ask))
        assert len(on.controller.fleet.serving) == 2
        assert "expert-0" not in on.controller.fleet.members
        assert [m.member_id for m in on.controller.fleet.of(Role.ROUTER)] == ["router-1"]
        assert "experts_lost" not in on.kinds
        assert "member_died" not in on.kinds
        assert on.answers > 0

    perform(model, tmp_path, play)


def test_experts_move_by_their_load(model: Path, tmp_path: Path) -> None:
    counted: dict[int, Sequence[int]] = {}

    async def count_tokens(on: Stage) -> None:
        link, fleet = GrpcLink(), on.controller.fleet
        counted.update(await link.tokens(fleet.members["router-0"], 5))
        assert counted.keys() == fleet.owners.keys()
        assert await link.busy_seconds(fleet.members["expert-0"], 5) > 0
        with pytest.raises(UnavailableError):
            nobody = dataclasses.replace(fleet.members["router-0"], metrics_address="127.0.0.1:1")
            await link.tokens(nobody, 5)
        await link.close()

    async def play(on: Stage) -> None:
        await on.meanwhile(
            wait_until_async(lambda: "balance" in _reasons(on), "a rebalance by load", 30)
        )
        assert "experts_lost" not in on.kinds

    perform(model, tmp_path / "first", count_tokens)
    perform(model, tmp_path / "second", play, balance=True, tokens=counted)


def test_busy_workers_get_help_by_themselves(model: Path, tmp_path: Path) -> None:
    async def play(on: Stage) -> None:
        await on.meanwhile(
            wait_until_async(lambda: len(on.controller.fleet.serving) == 4, "a further worker", 30)
        )
        asked = [e for e in on.chronicle.entries() if e.kind == "asked"]
        assert asked[0].facts["by"] == "autoscaler"

    scaler = Autoscaler(least=1, most=4, target=1e-4, down_after_s=1000)
    perform(model, tmp_path, play, scaler=scaler)


def test_a_controller_that_takes_over_in_a_change_finishes_it(model: Path, tmp_path: Path) -> None:
    async def play(on: Stage) -> None:
        old = on.controller
        await old.ask(ScaleAsked(workers=5, by="test"))
        await wait_until_async(lambda: old.fleet.change is not None, "a change under way", 30)
        saved = save(old.fleet)
        on.work.cancel()
        await asyncio.gather(on.work, return_exceptions=True)
        planned = new_fleet(on.planned.owners, ["expert-0"], ["router-0"], 2)
        on.take_over(resume(saved, planned))
        await on.meanwhile(on.rest())
        assert "resumed" in on.kinds
        assert "experts_lost" not in on.kinds
        assert len(owned(on.controller.fleet.owners)) == 5
        await _refused(on, old.fleet)

    perform(model, tmp_path, play)


async def _refused(on: Stage, fleet: Fleet) -> None:
    """A controller of an older term moves nothing, and stands back as soon as it looks."""
    link = GrpcLink()
    with pytest.raises(StaleEpochError):
        await link.evict(fleet.members["expert-0"], Epoch(term=1, counter=10**6), {1: (0,)})
    await link.close()
    old = on.controller_of(fleet)
    waking = asyncio.create_task(old.run())
    try:
        await wait_until_async(lambda: old.fleet.superseded, "the old controller's insight", 10)
    finally:
        waking.cancel()
        await asyncio.gather(waking, return_exceptions=True)


def _reasons(on: Stage) -> set[object]:
    return {e.facts["reason"] for e in on.chronicle.entries() if e.kind == "change_done"}
