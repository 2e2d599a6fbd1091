"""The same bits with the experts at workers as with the experts in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from router_service.config import EngineConfig
from tests.integration.router_service import exactness
from tests.integration.router_service.harness import Bench, Result, mixed_requests
from tests.integration.router_service.workers import (
    Grid,
    expert_major,
    layer_major,
    mixed,
    remote_experts,
)
from tests.support.deadline import run_async
from wire.carriers.carrier import CarrierChoice

GRIDS: tuple[tuple[Grid, int, CarrierChoice], ...] = (
    (expert_major, 1, "local"),
    (expert_major, 3, "inline"),
    (expert_major, 4, "local"),
    (layer_major, 3, "local"),
    (layer_major, 4, "inline"),
    (mixed, 3, "inline"),
    (mixed, 4, "local"),
)


@pytest.fixture(scope="module")
def expected(deep_bench: Bench) -> list[Result]:
    """What each of the mixed requests gets alone with the experts in this process."""
    requests = mixed_requests(deep_bench.model.config.vocab_size)
    return run_async(deep_bench.alone(requests), exactness.SECONDS)


def with_workers(
    bench: Bench,
    checkpoint: Path,
    grid: Grid,
    count: int,
    check: Callable[[Bench], Awaitable[None]],
    carrier: CarrierChoice = "auto",
) -> None:
    """Runs `check` on the bench with its experts moved to `count` workers."""

    async def main() -> None:
        async with remote_experts(checkpoint, bench.model, grid, count, carrier) as experts:
            await check(replace(bench, experts=experts))

    run_async(main(), exactness.SECONDS)


@pytest.mark.parametrize(("grid", "count", "carrier"), GRIDS)
def test_alone_and_in_a_batch_of_32(
    deep_bench: Bench,
    deep_checkpoint: Path,
    expected: list[Result],
    grid: Grid,
    count: int,
    carrier: CarrierChoice,
) -> None:
    async def check(bench: Bench) -> None:
        await exactness.check_batch(bench, expected, exactness.SHAPES[2])
        requests = mixed_requests(bench.model.config.vocab_size)[5:9]
        assert await bench.alone(requests) == expected[5:9]

    with_workers(deep_bench, deep_checkpoint, grid, count, check, carrier)


@pytest.mark.parametrize("config", exactness.SHAPES[1:5], ids=exactness.shape_name)
def test_any_chunking_and_any_micro_batches(
    deep_bench: Bench, deep_checkpoint: Path, expected: list[Result], config: EngineConfig
) -> None:
    async def check(bench: Bench) -> None:
        await exactness.check_batch(bench, expected, config)

    with_workers(deep_bench, deep_checkpoint, mixed, 4, check)


def test_preemption_and_replay(
    deep_bench: Bench, deep_checkpoint: Path, expected: list[Result]
) -> None:
    async def check(bench: Bench) -> None:
        await exactness.check_preemption(bench, expected)
        await exactness.check_replay(bench, expected)

    with_workers(deep_bench, deep_checkpoint, layer_major, 3, check)


def test_prompt_lengths_up_to_600(deep_bench: Bench, deep_checkpoint: Path) -> None:
    """Every length is swept with experts in this process; here every seventh."""
    vocab_size = deep_bench.model.config.vocab_size
    requests = exactness.sweep_requests(vocab_size, range(1, 601, 7))
    want = run_async(deep_bench.alone(requests), exactness.SECONDS)

    async def check(bench: Bench) -> None:
        got, _ = await bench.together(requests, EngineConfig(prefill_chunk=190))
        assert not exactness.differences(requests, got, want)

    with_workers(deep_bench, deep_checkpoint, mixed, 3, check)
