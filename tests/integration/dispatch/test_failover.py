"""Workers die, hang, leave and come back; no row gets other bits, and none is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal

import pytest
import torch

from experts_service.service import WorkerService
from router_service.dispatch import DispatchOptions, RemoteExperts
from tests.support.deadline import run_async, wait_until_async
from tests.support.dispatching import compare_rows
from tests.support.expert_workers import (
    ExpertModel,
    Grid,
    WorkerProcess,
    all_live,
    expert_major,
    placement,
    serving,
    worker_config,
    worker_process,
)
from wire.clients.expert_worker import ExpertWorkerClient
from wire.errors import InvalidRequestError, StaleEpochError
from wire.placement import Epoch

QUICK = DispatchOptions(deadline_s=1.0, describe_s=0.5)


def everything(model: ExpertModel) -> dict[int, range]:
    return {layer: range(model.config.n_routed_experts) for layer in model.config.moe_layers}


def later(counter: int) -> Epoch:
    return Epoch(term=1, counter=counter)


def test_a_killed_workers_rows_go_to_a_replica(model: ExpertModel) -> None:
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    with (
        worker_process(model.path, "expert-0", "all") as first,
        worker_process(model.path, "expert-1", "all") as second,
    ):
        run_async(_kill_one_of_two(model, grid, {"expert-0": first, "expert-1": second}))


async def _kill_one_of_two(
    model: ExpertModel, grid: Grid, workers: dict[str, WorkerProcess]
) -> None:
    remote = model.remote()
    addresses = {w: worker.address for w, worker in workers.items()}
    remote.set_placement(placement(model.config, grid, addresses, model.numerics.fingerprint))
    await wait_until_async(lambda: usable(remote) == {"expert-0", "expert-1"}, "both workers")
    layer = model.config.moe_layers[0]
    busy = asyncio.create_task(_keep_comparing(model, remote, layer))
    await asyncio.sleep(0.2)
    os.kill(workers["expert-0"].process.pid, signal.SIGKILL)
    await wait_until_async(lambda: usable(remote) == {"expert-1"}, "the loss to be noticed")
    await asyncio.sleep(0.2)
    busy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await busy
    await compare_rows(model, remote, layer, 30)
    await remote.close()


async def _keep_comparing(model: ExpertModel, remote: RemoteExperts, layer: int) -> None:
    seed = 0
    while True:
        seed += 1
        async with asyncio.TaskGroup() as group:
            for number in (1, 7, 20):
                group.create_task(compare_rows(model, remote, layer, number, seed))


def test_rows_without_a_copy_are_parked_and_resumed(model: ExpertModel) -> None:
    grid = expert_major(model.config, 2)
    specs = {
        worker: ",".join(f"{layer}:{e}" for layer, ids in layers.items() for e in ids)
        for worker, layers in grid.items()
    }
    with (
        worker_process(model.path, "expert-0", specs["expert-0"]) as first,
        worker_process(model.path, "expert-1", specs["expert-1"]) as second,
        worker_process(model.path, "spare", specs["expert-1"]) as spare,
    ):
        run_async(
            _park_and_resume(model, grid, {"expert-0": first, "expert-1": second, "spare": spare})
        )


async def _park_and_resume(
    model: ExpertModel, grid: Grid, workers: dict[str, WorkerProcess]
) -> None:
    remote = model.remote()
    told = asyncio.Event()
    remote.add_listener(told.set)
    addresses = {w: worker.address for w, worker in workers.items()}
    remote.set_placement(placement(model.config, grid, addresses))
    await all_live(remote, model.config)
    layer = model.config.moe_layers[0]
    workers["expert-1"].process.kill()

    x, idx, weights = model.rows(40, seed=5)
    # Even experts are expert-0's: rows 0 to 9 keep to them, and need nobody else.
    evens = torch.arange(0, 2 * idx.shape[1], 2)
    idx[:10] = evens
    here = await (await model.local.dispatch(layer, x, idx, weights, None))
    there = await (await remote.dispatch(layer, x, idx, weights, None))
    lost = (idx % 2 == 1).any(dim=1)
    assert there.parked is not None
    assert torch.equal(there.parked, lost)
    assert torch.equal(there.rows[~lost], here.rows[~lost])
    assert torch.isfinite(there.rows).all()
    assert set(there.missing) == set(lost.nonzero()[:, 0].tolist())
    for row, (number, expert) in there.missing.items():
        assert number == layer
        assert expert in idx[row].tolist()
        assert not remote.is_live(layer, expert)

    told.clear()
    new: Grid = {"expert-0": grid["expert-0"], "spare": grid["expert-1"]}
    remote.set_placement(placement(model.config, new, addresses, epoch=later(2)))
    await all_live(remote, model.config)
    assert told.is_set()
    again = await (await remote.dispatch(layer, x, idx, weights, None))
    assert again.parked is None
    assert torch.equal(again.rows, here.rows)
    await remote.close()


def test_a_hung_worker_costs_one_deadline(model: ExpertModel) -> None:
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    with worker_process(model.path, "expert-0", "all") as first:
        run_async(_hang(model, grid, first))


async def _hang(model: ExpertModel, grid: Grid, hung: WorkerProcess) -> None:
    layer = model.config.moe_layers[0]
    async with serving(model.path, {"expert-1": grid["expert-1"]}) as services:
        remote = model.remote(QUICK)
        addresses = {"expert-0": hung.address, "expert-1": services["expert-1"].address}
        remote.set_placement(placement(model.config, grid, addresses))
        await wait_until_async(lambda: usable(remote) == {"expert-0", "expert-1"}, "both workers")
        hung.process.send_signal(signal.SIGSTOP)
        try:
            await compare_rows(model, remote, layer, 6)
            assert usable(remote) == {"expert-1"}
            loop = asyncio.get_running_loop()
            started = loop.time()
            await compare_rows(model, remote, layer, 6)
            assert loop.time() - started < QUICK.deadline_s
        finally:
            hung.process.send_signal(signal.SIGCONT)
        await wait_until_async(lambda: len(usable(remote)) == 2, "the worker to be used again")
        await compare_rows(model, remote, layer, 6)
        await remote.close()


def test_a_worker_that_comes_back_is_used_again(model: ExpertModel) -> None:
    run_async(_come_back(model))


async def _come_back(model: ExpertModel) -> None:
    layer = model.config.moe_layers[0]
    grid: Grid = {"expert-0": everything(model)}
    remote = model.remote()
    async with serving(model.path, grid) as services:
        address = services["expert-0"].address
        remote.set_placement(placement(model.config, grid, {"expert-0": address}))
        await all_live(remote, model.config)
        await compare_rows(model, remote, layer, 3)
    await wait_until_async(lambda: not remote.is_live(layer, 0), "the loss to be noticed")
    config = worker_config(model.path, "expert-0", everything(model))
    service = WorkerService(dataclasses.replace(config, listen=address))
    await service.start()
    await service.wait_ready()
    await all_live(remote, model.config)
    await compare_rows(model, remote, layer, 3)
    await remote.close()
    await service.stop()


def test_draining_moves_rows_without_an_error(model: ExpertModel) -> None:
    run_async(_drain(model))


async def _drain(model: ExpertModel) -> None:
    layer = model.config.moe_layers[0]
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    async with serving(model.path, grid) as services:
        remote = model.remote()
        addresses = {w: s.address for w, s in services.items()}
        remote.set_placement(placement(model.config, grid, addresses))
        await wait_until_async(lambda: len(usable(remote)) == 2, "both workers")
        busy = asyncio.create_task(_keep_comparing(model, remote, layer))
        await asyncio.sleep(0.1)
        async with ExpertWorkerClient(addresses["expert-0"]) as client:
            assert await client.drain(10.0)
        await compare_rows(model, remote, layer, 9)
        await wait_until_async(lambda: usable(remote) == {"expert-1"}, "the drain to be noticed")
        busy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await busy
        await remote.close()


def test_load_publish_evict_never_pauses(model: ExpertModel) -> None:
    run_async(_rearrange(model))


async def _rearrange(model: ExpertModel) -> None:
    """Moves the experts of one worker to another while rows run."""
    config = model.config
    layer = config.moe_layers[0]
    grid: Grid = {"expert-0": everything(model), "expert-1": {}}
    async with serving(model.path, grid) as services:
        addresses = {w: s.address for w, s in services.items()}
        remote = model.remote()
        remote.set_placement(placement(config, grid, addresses))
        await all_live(remote, config)
        busy = asyncio.create_task(_keep_comparing(model, remote, layer))
        async with (
            ExpertWorkerClient(addresses["expert-0"]) as old,
            ExpertWorkerClient(addresses["expert-1"]) as new,
        ):
            await new.load(later(2), everything(model))
            moved: Grid = {"expert-0": {}, "expert-1": everything(model)}
            remote.set_placement(placement(config, moved, addresses, epoch=later(2)))
            await wait_until_async(lambda: remote.is_live(layer, 0), "the new owner")
            await old.evict(later(2), everything(model))
        await asyncio.sleep(0.2)
        assert not busy.done()
        busy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await busy
        assert not services["expert-0"].describe().experts
        await remote.close()


def test_an_evicted_expert_is_asked_of_another_owner(model: ExpertModel) -> None:
    run_async(_evicted(model))


async def _evicted(model: ExpertModel) -> None:
    config = model.config
    layer = config.moe_layers[0]
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    async with serving(model.path, grid) as services:
        addresses = {w: s.address for w, s in services.items()}
        remote = model.remote()
        remote.set_placement(placement(config, grid, addresses))
        await wait_until_async(lambda: len(usable(remote)) == 2, "both workers")
        await services["expert-0"].evict(later(1), {layer: [0, 1, 2, 3]})
        for seed in range(5):
            await compare_rows(model, remote, layer, 20, seed)
        errors = remote.snapshot()["workers"]["expert-0"]["errors"]
        assert set(errors) <= {"expert_not_held"}
        await services["expert-0"].load(later(1), {layer: [0, 1, 2, 3]})
        await compare_rows(model, remote, layer, 20)
        await remote.close()


def test_a_router_of_an_older_term_waits_for_the_newer_placement(model: ExpertModel) -> None:
    run_async(_older_term(model))


async def _older_term(model: ExpertModel) -> None:
    config = model.config
    layer = config.moe_layers[0]
    grid: Grid = {"expert-0": everything(model)}
    async with serving(model.path, grid) as services:
        addresses = {w: s.address for w, s in services.items()}
        remote = model.remote()
        remote.set_placement(placement(config, grid, addresses))
        assert await remote.settled(30)
        await compare_rows(model, remote, layer, 4)
        newer = Epoch(term=2, counter=0)
        await services["expert-0"].load(newer, {})
        x, idx, weights = model.rows(3, seed=1)
        result = await (await remote.dispatch(layer, x, idx, weights, None))
        assert result.parked is not None and result.parked.all()
        assert not remote.is_live(layer, 0)
        errors = remote.snapshot()["workers"]["expert-0"]["errors"]
        assert errors == {"stale_epoch": 1}
        remote.set_placement(placement(config, grid, addresses, epoch=newer))
        await all_live(remote, config)
        await compare_rows(model, remote, layer, 4)
        await remote.close()


def test_workers_with_other_bits_are_never_asked(model: ExpertModel) -> None:
    run_async(_other_bits(model))


async def _other_bits(model: ExpertModel) -> None:
    config = model.config
    grid: Grid = {"expert-0": everything(model)}
    async with serving(model.path, grid) as services:
        addresses = {w: s.address for w, s in services.items()}
        claimed = model.remote()
        claimed.set_placement(placement(config, grid, addresses, "another fingerprint"))
        other = model.with_fingerprint("mine is another").remote()
        other.set_placement(placement(config, grid, addresses))
        await wait_until_async(
            lambda: "numerics" in (other.snapshot()["workers"]["expert-0"]["refusal"] or ""),
            "the refusal",
        )
        await asyncio.sleep(0.2)
        layer = config.moe_layers[0]
        assert not claimed.is_live(layer, 0)
        assert not other.is_live(layer, 0)
        x, idx, weights = model.rows(3, seed=1)
        result = await (await other.dispatch(layer, x, idx, weights, None))
        assert result.parked is not None and result.parked.all()
        await claimed.close()
        await other.close()


def test_placements_that_cannot_be(model: ExpertModel) -> None:
    run_async(_bad_placements(model))


async def _bad_placements(model: ExpertModel) -> None:
    config = model.config
    grid = expert_major(config, 1)
    remote = model.remote()
    addresses = {"expert-0": "127.0.0.1:1"}
    good = placement(config, grid, addresses, epoch=Epoch(term=2, counter=1))
    remote.set_placement(good)
    remote.set_placement(good)
    for epoch in (Epoch(term=1, counter=9), Epoch(term=2, counter=0)):
        with pytest.raises(StaleEpochError):
            remote.set_placement(placement(config, grid, addresses, epoch=epoch))
    for owners in (
        {0: good.owners[1]},
        {1: good.owners[1][:-1]},
        {1: (("nobody",), *good.owners[1][1:])},
    ):
        wrong = type(good)(epoch=good.epoch, workers=good.workers, owners=owners)
        with pytest.raises(InvalidRequestError):
            remote.set_placement(wrong)
    assert remote.epoch == Epoch(term=2, counter=1)
    await remote.close()


def usable(remote: RemoteExperts) -> set[str]:
    return {w for w, seen in remote.snapshot()["workers"].items() if seen["usable"]}
