"""Workers go away while requests run; what the requests get stays the same, bit for bit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from kimi_k2.config import ModelConfig
from monitoring.metrics import RouterMetrics
from router_service.config import EngineConfig
from router_service.dispatch import DispatchOptions, RemoteExperts
from router_service.engine import Engine
from router_service.request_stream import RequestStream
from tests.integration.router_service import exactness
from tests.integration.router_service.harness import Bench, Result, collect, mixed_requests
from tests.integration.router_service.workers import (
    Owners,
    all_live,
    expert_major,
    placement,
    started_workers,
)
from tests.support.deadline import run_async, wait_until_async
from wire.errors import ExpertsUnavailableError

OPTIONS = DispatchOptions(deadline_s=3.0)
TOKENS = 120
"""Of each request: far more than are computed while a worker says goodbye."""


@pytest.fixture(scope="module")
def expected(bench: Bench) -> list[Result]:
    requests = mixed_requests(bench.model.config.vocab_size, TOKENS)
    return run_async(bench.alone(requests), exactness.SECONDS)


def twice(config: ModelConfig, workers: tuple[str, ...]) -> Owners:
    """Every expert at every worker."""
    return dict.fromkeys(config.moe_layers, (workers,) * config.n_routed_experts)


def new_experts(bench: Bench) -> RemoteExperts:
    metrics = RouterMetrics(CollectorRegistry())
    return RemoteExperts(bench.model.config, bench.model.numerics, "r", metrics, OPTIONS)


async def start(bench: Bench, config: EngineConfig) -> tuple[Engine, list[asyncio.Task[Result]]]:
    """An engine in the middle of the mixed requests."""
    engine = bench.engine(config)
    if isinstance(bench.experts, RemoteExperts):
        bench.experts.add_listener(engine.experts_changed)
    engine.start()
    requests = mixed_requests(bench.model.config.vocab_size, TOKENS)
    tasks = [asyncio.create_task(collect(RequestStream(engine, r))) for r in requests]
    return engine, tasks


def half_way(engine: Engine) -> Callable[[], bool]:
    return lambda: sum(seq.output_length for seq in engine.scheduler.sequences) > 200


async def finish(engine: Engine, tasks: list[asyncio.Task[Result]]) -> list[Result]:
    results = await asyncio.gather(*tasks)
    await wait_until_async(lambda: not engine.check_integrity(), "a clean engine", 10.0)
    await engine.stop()
    return results


def test_another_copy_takes_over(bench: Bench, checkpoint: Path, expected: list[Result]) -> None:
    async def main() -> None:
        config = bench.model.config
        owners = twice(config, ("expert-0", "expert-1"))
        async with started_workers(checkpoint, owners, 2) as workers:
            experts = new_experts(bench)
            experts.set_placement(placement(owners, workers))
            await wait_until_async(lambda: all_live(experts, config), "experts", 20.0)
            engine, tasks = await start(replace(bench, experts=experts), EngineConfig())
            await wait_until_async(half_way(engine), "the middle", 20.0)
            await workers["expert-1"].stop()
            got = await finish(engine, tasks)
            await experts.close()
        requests = mixed_requests(config.vocab_size, TOKENS)
        assert not exactness.differences(requests, got, expected)

    run_async(main(), exactness.SECONDS)


def test_rows_without_a_copy_wait_for_a_new_worker(
    bench: Bench, checkpoint: Path, expected: list[Result]
) -> None:
    async def main() -> None:
        config = bench.model.config
        owners = expert_major(config, ("expert-0", "expert-1", "expert-2"))
        async with started_workers(checkpoint, owners, 3) as workers:
            experts = new_experts(bench)
            experts.set_placement(placement(owners, workers))
            await wait_until_async(lambda: all_live(experts, config), "experts", 20.0)
            tight = EngineConfig(kv_blocks=60)
            engine, tasks = await start(replace(bench, experts=experts), tight)
            await wait_until_async(half_way(engine), "the middle", 20.0)
            await workers["expert-1"].stop()
            await wait_until_async(lambda: len(engine.scheduler.parked) > 10, "parking", 20.0)
            assert not engine.scheduler.violations()
            async with started_workers(checkpoint, owners, 3) as fresh:
                merged = {**workers, "expert-1": fresh["expert-1"]}
                experts.set_placement(placement(owners, merged, counter=2))
                got = await finish(engine, tasks)
                await experts.close()
        requests = mixed_requests(config.vocab_size, TOKENS)
        assert not exactness.differences(requests, got, expected)

    run_async(main(), exactness.SECONDS)


def test_what_never_comes_back_is_named(bench: Bench, checkpoint: Path) -> None:
    async def main() -> None:
        config = bench.model.config
        owners = expert_major(config, ("expert-0", "expert-1", "expert-2"))
        async with started_workers(checkpoint, owners, 3) as workers:
            experts = new_experts(bench)
            experts.set_placement(placement(owners, workers))
            await wait_until_async(lambda: all_live(experts, config), "experts", 20.0)
            impatient = EngineConfig(park_timeout_s=0.5, park_poll_s=0.05)
            engine, tasks = await start(replace(bench, experts=experts), impatient)
            await wait_until_async(half_way(engine), "the middle", 20.0)
            await workers["expert-1"].stop()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await wait_until_async(lambda: not engine.check_integrity(), "a clean engine", 10.0)
            await engine.stop()
            await experts.close()
        errors = [end for end in ends if isinstance(end, BaseException)]
        assert errors
        assert {type(error) for error in errors} == {ExpertsUnavailableError}
        numbers = {int(str(error).split()[1]) for error in errors}
        assert all(number % 3 == 1 for number in numbers)

    run_async(main(), exactness.SECONDS)
