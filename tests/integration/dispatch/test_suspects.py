"""Workers that are slow, hang or answer wrongly stop hurting the step, and are used again when they
are well; every row has the bits of the undisturbed run."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest
import torch

from kimi_k2.canary import canary_answer, canary_rows
from kimi_k2.checkpoint import Checkpoint
from router_service.dispatch import DispatchOptions, RemoteExperts
from tests.support.deadline import run_async, wait_until_async
from tests.support.dispatching import compare_rows
from tests.support.expert_workers import (
    ExpertModel,
    Grid,
    placement,
    serving,
    worker_process,
)
from tests.support.hostile_worker import HostileWorker, listening, one_bit

WATCHFUL = DispatchOptions(
    deadline_s=20.0,
    late_min_s=0.1,
    late_max_s=2.0,
    canary_s=0.2,
    min_backoff_s=0.02,
    max_backoff_s=0.2,
)


def everything(model: ExpertModel) -> dict[int, range]:
    return {layer: range(model.config.n_routed_experts) for layer in model.config.moe_layers}


def seen(remote: RemoteExperts, worker: str) -> dict[str, Any]:
    link: dict[str, Any] = remote.snapshot()["workers"][worker]
    return link


async def closed(remote: RemoteExperts, *workers: str) -> None:
    await wait_until_async(
        lambda: all(seen(remote, worker)["breaker"] == "closed" for worker in workers),
        f"{workers} to be used",
    )


async def compare_two(model: ExpertModel, remote: RemoteExperts, seed: int) -> float:
    """Two dispatches at a time, so that both replicas are asked; the seconds that they took."""
    layer = model.config.moe_layers[0]
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(compare_rows(model, remote, layer, 4, seed))
        group.create_task(compare_rows(model, remote, layer, 5, seed))
    return time.perf_counter() - began


def test_a_canarys_right_answer_is_what_every_process_computes(model: ExpertModel) -> None:
    """By compiled kernels in a batch with others, and by torch alone with one expert loaded."""
    config, checkpoint = model.config, Checkpoint(model.path)
    x = canary_rows(config.hidden_size, model.numerics)
    for layer in config.moe_layers:
        for expert in range(0, config.n_routed_experts, 5):
            held = model.local._weights[layer]
            idx = torch.full((len(x), 1), expert)
            there = asyncio.run(_local(model, layer, x, idx))
            assert held is not None
            assert torch.equal(canary_answer(checkpoint, x, model.numerics, layer, expert), there)


async def _local(
    model: ExpertModel, layer: int, x: torch.Tensor, idx: torch.Tensor
) -> torch.Tensor:
    # One expert with weight one: combining leaves its row as it is.
    return (await (await model.local.dispatch(layer, x, idx, torch.ones(idx.shape), None))).rows


def test_a_hung_worker_costs_no_more_than_late_answers(model: ExpertModel) -> None:
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    with (
        worker_process(model.path, "expert-0", "all") as first,
        worker_process(model.path, "expert-1", "all") as second,
    ):
        addresses = {"expert-0": first.address, "expert-1": second.address}
        run_async(_hang(model, grid, addresses, first.process))


async def _hang(model: ExpertModel, grid: Grid, addresses: dict[str, str], hung: Any) -> None:
    remote = model.remote(WATCHFUL, canaries=True)
    remote.set_placement(placement(model.config, grid, addresses))
    await closed(remote, "expert-0", "expert-1")
    for seed in range(40):
        await compare_two(model, remote, seed)
    hung.send_signal(signal.SIGSTOP)
    try:
        longest = await compare_two(model, remote, 1)
        began = time.perf_counter()
        while seen(remote, "expert-0")["usable"] and time.perf_counter() - began < 15.0:
            longest = max(longest, await compare_two(model, remote, 1))
        assert longest < 2.0
        worker = seen(remote, "expert-0")
        assert worker["breaker"] != "closed"
        assert worker["stragglers"] >= 1
        assert worker["failovers"]["late"] >= 1
        assert not worker["usable"], "its process does not say how it is: it counts as lost"
    finally:
        hung.send_signal(signal.SIGCONT)
    await closed(remote, "expert-0", "expert-1")
    before = seen(remote, "expert-0")["messages"]
    for seed in range(5):
        await compare_two(model, remote, seed)
    assert seen(remote, "expert-0")["messages"] > before
    await remote.close()


def test_a_slow_worker_is_avoided_until_it_is_quick_again(model: ExpertModel) -> None:
    run_async(_slow(model))


async def _slow(model: ExpertModel) -> None:
    slow, quick = HostileWorker(model, "expert-0"), HostileWorker(model, "expert-1")
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    async with listening(slow) as first, listening(quick) as second:
        remote = model.remote(WATCHFUL, canaries=True)
        addresses = {"expert-0": first, "expert-1": second}
        remote.set_placement(placement(model.config, grid, addresses))
        await closed(remote, "expert-0", "expert-1")
        for seed in range(40):
            await compare_two(model, remote, seed)
        # Not late by far, since both workers share this one busy loop.
        slow.delay_s = 0.08
        for seed in range(200):
            await compare_two(model, remote, seed)
            if seen(remote, "expert-0")["breaker"] != "closed":
                break
        assert seen(remote, "expert-0")["fault"] in ("slow", "late")
        assert seen(remote, "expert-0")["usable"]
        asked = slow.asked
        began = seen(remote, "expert-1")["messages"]
        for seed in range(10):
            await compare_two(model, remote, seed)
        assert seen(remote, "expert-1")["messages"] - began >= 40
        # No more than probes.
        assert slow.asked - asked <= 12
        slow.delay_s = 0.0
        await closed(remote, "expert-0", "expert-1")
        asked = slow.asked
        for seed in range(5):
            await compare_two(model, remote, seed)
        assert slow.asked - asked >= 5
        await remote.close()


def test_a_slow_worker_without_a_replica_is_waited_for(model: ExpertModel) -> None:
    run_async(_slow_alone(model))


async def _slow_alone(model: ExpertModel) -> None:
    slow = HostileWorker(model)
    layer = model.config.moe_layers[0]
    async with listening(slow) as address:
        options = DispatchOptions(late_min_s=0.02, late_max_s=0.05)
        remote = model.remote(options)
        grid: Grid = {"expert-0": everything(model)}
        remote.set_placement(placement(model.config, grid, {"expert-0": address}))
        await closed(remote, "expert-0")
        slow.delay_s = 0.2
        for seed in range(5):
            await compare_rows(model, remote, layer, 4, seed)
        worker = seen(remote, "expert-0")
        assert worker["usable"]
        assert worker["stragglers"] >= 5
        assert worker["failovers"] == {}
        assert worker["late_answers"] == 0
        await remote.close()


def test_a_late_answer_is_discarded_and_counted(model: ExpertModel) -> None:
    run_async(_late(model))


async def _late(model: ExpertModel) -> None:
    slow = HostileWorker(model)
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    layer = model.config.moe_layers[0]
    async with (
        listening(slow) as first,
        serving(model.path, {"expert-1": grid["expert-1"]}) as services,
    ):
        remote = model.remote(DispatchOptions(late_min_s=0.1, late_max_s=0.1, open_after=100))
        addresses = {"expert-0": first, "expert-1": services["expert-1"].address}
        remote.set_placement(placement(model.config, grid, addresses))
        await closed(remote, "expert-0", "expert-1")
        slow.delay_s = 1.0
        slow.spoil = one_bit
        # Wrong as well, so that the bits would show if it were taken.
        await compare_rows(model, remote, layer, 4)
        worker = seen(remote, "expert-0")
        assert worker["failovers"] == {"late": worker["stragglers"]}
        assert worker["stragglers"] >= 1
        await wait_until_async(
            lambda: seen(remote, "expert-0")["late_answers"] == worker["stragglers"],
            "the late answers",
        )
        assert seen(remote, "expert-0")["outstanding"] == 0
        await remote.close()


def test_a_worker_that_is_wrong_from_the_start_is_never_believed(model: ExpertModel) -> None:
    run_async(_wrong_at_first(model))


async def _wrong_at_first(model: ExpertModel) -> None:
    wrong = HostileWorker(model)
    wrong.spoil = one_bit
    wrong.pid = 4711
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    layer = model.config.moe_layers[0]
    async with (
        listening(wrong) as first,
        serving(model.path, {"expert-1": grid["expert-1"]}) as services,
    ):
        remote = model.remote(WATCHFUL, canaries=True)
        addresses = {"expert-0": first, "expert-1": services["expert-1"].address}
        remote.set_placement(placement(model.config, grid, addresses))
        await wait_until_async(lambda: seen(remote, "expert-0")["quarantined"], "the quarantine")
        await closed(remote, "expert-1")
        for seed in range(10):
            await compare_rows(model, remote, layer, 6, seed)
        assert seen(remote, "expert-0")["messages"] == 1
        assert seen(remote, "expert-0")["canaries"] == {"wrong": 1}
        [suspect] = remote.suspects()
        assert (suspect.worker_id, suspect.pid) == ("expert-0", 4711)
        assert "layer" in suspect.reason
        await remote.close()


def test_a_worker_that_becomes_wrong_is_found_out(model: ExpertModel) -> None:
    run_async(_becomes_wrong(model))


async def _becomes_wrong(model: ExpertModel) -> None:
    wrong = HostileWorker(model)
    grid: Grid = {"expert-0": everything(model)}
    layer = model.config.moe_layers[0]
    x, idx, weights = model.rows(3, seed=1)
    remote = model.remote(WATCHFUL, canaries=True)
    async with listening(wrong) as address:
        remote.set_placement(placement(model.config, grid, {"expert-0": address}))
        await closed(remote, "expert-0")
        await compare_rows(model, remote, layer, 6)
        wrong.spoil = one_bit
        await wait_until_async(lambda: seen(remote, "expert-0")["quarantined"], "the quarantine")
        # Without another copy its rows wait, and none of its answers is taken.
        result = await (await remote.dispatch(layer, x, idx, weights, None))
        assert result.parked is not None
        assert result.parked.all()
        # It does not help it to be right later: nobody knows what else is wrong with it.
        wrong.spoil = None
        await asyncio.sleep(0.5)
        assert seen(remote, "expert-0")["quarantined"]
    wrong = HostileWorker(model)
    async with listening(wrong, address):
        await closed(remote, "expert-0")
        assert remote.suspects() == []
        await compare_rows(model, remote, layer, 6)
    await remote.close()


def test_messages_under_way_are_not_believed_once_a_worker_is_found_out(
    model: ExpertModel,
) -> None:
    run_async(_under_way(model))


async def _under_way(model: ExpertModel) -> None:
    wrong = HostileWorker(model)
    grid: Grid = {"expert-0": everything(model)}
    layer = model.config.moe_layers[0]
    x, idx, weights = model.rows(3, seed=1)
    async with listening(wrong) as address:
        remote = model.remote(WATCHFUL, canaries=True)
        remote.set_placement(placement(model.config, grid, {"expert-0": address}))
        await closed(remote, "expert-0")
        # A canary is on its way, and answered before what is sent behind it.
        wrong.spoil, wrong.delay_s = one_bit, 0.4
        asked = wrong.asked
        await wait_until_async(lambda: wrong.asked > asked, "a canary")
        result = await (await remote.dispatch(layer, x, idx, weights, None))
        assert result.parked is not None
        assert result.parked.all()
        worker = seen(remote, "expert-0")
        assert worker["quarantined"]
        assert worker["failovers"] == {"garbage": 1}
        await remote.close()


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_hedges_keep_to_their_budget_and_can_win(model: ExpertModel, fraction: float) -> None:
    run_async(_hedge(model, fraction))


async def _hedge(model: ExpertModel, fraction: float) -> None:
    slow = HostileWorker(model)
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    async with (
        listening(slow) as first,
        serving(model.path, {"expert-1": grid["expert-1"]}) as services,
    ):
        options = DispatchOptions(
            late_min_s=2.0,
            late_max_s=2.0,
            slow_min_s=60.0,
            hedge_fraction=fraction,
            hedge_quantile=0.5,
        )
        remote = model.remote(options)
        addresses = {"expert-0": first, "expert-1": services["expert-1"].address}
        remote.set_placement(placement(model.config, grid, addresses))
        await closed(remote, "expert-0", "expert-1")
        for seed in range(40):
            await compare_two(model, remote, seed)
        slow.delay_s = 0.15
        for seed in range(10):
            await compare_two(model, remote, seed)
        sent = sum(seen(remote, w)["hedges"]["sent"] for w in addresses)
        won = sum(seen(remote, w)["hedges"]["won"] for w in addresses)
        messages = sum(seen(remote, w)["messages"] for w in addresses)
        assert won <= sent <= fraction * messages
        assert (won > 0) == (fraction > 0)
        assert all(seen(remote, w)["failovers"] == {} for w in addresses)
        await remote.close()
