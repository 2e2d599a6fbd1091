"""Rows by a local socket: chosen where it can be, done without where it cannot, lost at once."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch

from router_service.dispatch import DispatchOptions, RemoteExperts
from tests.support.deadline import run_async, wait_until_async
from tests.support.dispatching import compare_rows, request, talking
from tests.support.expert_workers import (
    ExpertModel,
    Grid,
    WorkerProcess,
    all_live,
    expert_major,
    placement,
    serving,
    worker_process,
)
from wire.carriers.carrier import LOCAL, CarrierChoice
from wire.codec import decode_answer, encode_request
from wire.frames import DispatchReply


def carriers(remote: RemoteExperts) -> dict[str, str | None]:
    return {w: seen["carrier"] for w, seen in remote.snapshot()["workers"].items()}


def names(directory: Path) -> list[str]:
    return [made.name for made in directory.iterdir()]


def test_a_killed_worker_is_noticed_at_once_and_leaves_nothing(model: ExpertModel) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as short,
        worker_process(model.path, "expert-0", "all", temporary=Path(short)) as first,
        worker_process(model.path, "expert-1", "all", temporary=Path(short)) as second,
    ):
        run_async(_killed(model, {"expert-0": first, "expert-1": second}))
        assert names(Path(short)) == []


async def _killed(model: ExpertModel, workers: dict[str, WorkerProcess]) -> None:
    everything = {layer: range(model.config.n_routed_experts) for layer in model.config.moe_layers}
    grid: Grid = dict.fromkeys(workers, everything)
    remote = model.remote()
    addresses = {w: worker.address for w, worker in workers.items()}
    remote.set_placement(placement(model.config, grid, addresses))
    await wait_until_async(lambda: set(carriers(remote).values()) == {"local"}, "both workers")
    layer = model.config.moe_layers[0]
    await compare_rows(model, remote, layer, 9)
    stopped = workers["expert-0"].process
    stopped.send_signal(signal.SIGSTOP)
    x, idx, weights = model.rows(5, seed=3)
    pending = await remote.dispatch(layer, x, idx, weights, None)
    await asyncio.sleep(0.1)
    killed_at = time.perf_counter()
    os.kill(stopped.pid, signal.SIGKILL)
    there = await pending
    assert time.perf_counter() - killed_at < 1.0
    here = await (await model.local.dispatch(layer, x, idx, weights, None))
    assert there.parked is None
    assert torch.equal(there.rows, here.rows)
    assert not remote.snapshot()["workers"]["expert-0"]["usable"]
    await compare_rows(model, remote, layer, 9)
    await remote.close()


def test_rows_of_megabytes(model: ExpertModel) -> None:
    run_async(_large(model))


async def _large(model: ExpertModel) -> None:
    async with serving(model.path, expert_major(model.config, 2)) as services:
        remote = model.remote(DispatchOptions(carrier="local"))
        addresses = {w: s.address for w, s in services.items()}
        remote.set_placement(placement(model.config, expert_major(model.config, 2), addresses))
        await all_live(remote, model.config)
        layer = model.config.moe_layers[0]
        rows = (4 << 20) // (4 * model.config.hidden_size)
        async with asyncio.TaskGroup() as group:
            for number in (rows, 3, rows // 2, 1):
                group.create_task(compare_rows(model, remote, layer, number))
        await remote.close()


@pytest.mark.parametrize(
    ("of_worker", "of_router", "used"),
    [
        ("auto", "auto", "local"),
        ("local", "local", "local"),
        ("inline", "auto", "inline"),
        ("auto", "inline", "inline"),
        ("inline", "local", None),
    ],
)
def test_which_carrier(
    model: ExpertModel, of_worker: CarrierChoice, of_router: CarrierChoice, used: str | None
) -> None:
    run_async(_which(model, of_worker, of_router, used))


async def _which(
    model: ExpertModel, of_worker: CarrierChoice, of_router: CarrierChoice, used: str | None
) -> None:
    grid = expert_major(model.config, 1)
    async with serving(model.path, grid, of_worker) as services:
        remote = model.remote(DispatchOptions(carrier=of_router))
        addresses = {w: s.address for w, s in services.items()}
        remote.set_placement(placement(model.config, grid, addresses))
        if used is None:
            refusal = "offers no local socket"
            await wait_until_async(
                lambda: refusal in str(remote.snapshot()["workers"]["expert-0"]["refusal"]),
                "the refusal",
            )
            assert not remote.is_live(model.config.moe_layers[0], 0)
        else:
            await all_live(remote, model.config)
            assert carriers(remote) == {"expert-0": used}
            await compare_rows(model, remote, model.config.moe_layers[0], 4)
        await remote.close()


def test_where_no_socket_can_be_made_the_stream_carries(model: ExpertModel) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="x" * 90) as long,
        worker_process(model.path, "expert-0", "all", temporary=Path(long)) as worker,
    ):
        run_async(_fallback(model, worker))
        assert names(Path(long)) == []


async def _fallback(model: ExpertModel, worker: WorkerProcess) -> None:
    remote = model.remote()
    grid = expert_major(model.config, 1)
    remote.set_placement(placement(model.config, grid, {"expert-0": worker.address}))
    await all_live(remote, model.config)
    seen = remote.snapshot()["workers"]["expert-0"]
    assert seen["carrier"] == "inline"
    assert "offers no local socket" in seen["fallback"]
    await compare_rows(model, remote, model.config.moe_layers[0], 7)
    await remote.close()


def test_a_router_that_does_not_read_is_not_read_from(model: ExpertModel) -> None:
    run_async(_does_not_read(model))


async def _does_not_read(model: ExpertModel) -> None:
    async with serving(model.path, expert_major(model.config, 1)) as services:
        service = services["expert-0"]
        async with talking(service.address, LOCAL) as stream:
            stream.carrier.pause_reading()
            number = 1500
            for request_id in range(1, number + 1):
                await stream.write(encode_request(request(model, request_id, rows=64)))
            await wait_until_async(lambda: service._in_flight.count >= 256, "the limit")
            await asyncio.sleep(0.2)
            # What one read may bring beyond it.
            assert service._in_flight.count < 300
            stream.carrier.resume_reading()
            answers = [decode_answer(await stream.read()) for _ in range(number)]
            assert all(isinstance(answer, DispatchReply) for answer in answers)
            assert {answer.request_id for answer in answers} == set(range(1, number + 1))
        assert await service.drain(5.0)


def test_a_lost_router_does_not_keep_a_worker_from_draining(model: ExpertModel) -> None:
    run_async(_lost_router(model))


async def _lost_router(model: ExpertModel) -> None:
    async with serving(model.path, expert_major(model.config, 1)) as services:
        service = services["expert-0"]
        async with talking(service.address, LOCAL) as stream:
            stream.carrier.pause_reading()
            for request_id in range(1, 1500):
                await stream.write(encode_request(request(model, request_id, rows=64)))
            await wait_until_async(lambda: service._in_flight.count > 200, "requests in flight")
            # The socket goes, the stream stays.
            stream.carrier.close()
            assert await service.drain(5.0)
