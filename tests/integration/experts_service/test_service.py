"""A worker's control calls: describe, load, evict, drain, health, metrics."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from experts_service.config import WorkerConfig
from experts_service.service import WorkerService
from experts_service.status import WorkerState
from monitoring.server import ListenError
from tests.support.deadline import run_async
from tests.support.dispatching import compare_rows, request
from tests.support.expert_workers import (
    ExpertModel,
    all_live,
    expert_major,
    placement,
    serving,
)
from wire.channels import open_channel
from wire.clients.expert_worker import ExpertWorkerClient
from wire.codec import encode_request
from wire.errors import InternalError, InvalidRequestError, StaleEpochError, UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.placement import Epoch
from wire.services import dispatch_stream

FIRST = Epoch(term=3, counter=1)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(address: str) -> int:
    async with open_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(
            health_pb2.HealthCheckRequest(service="orrery.v1.ExpertWorker"), timeout=5
        )
        return int(answer.status)


def get_json(address: str, path: str) -> object:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
        return json.loads(answer.read())


def test_life(model: ExpertModel) -> None:
    run_async(_life(model))


async def _life(model: ExpertModel) -> None:
    layer = model.config.moe_layers[0]
    service = WorkerService(
        WorkerConfig(worker_id="w", model=model.path, experts={layer: [0, 1, 5]})
    )
    await service.start()
    async with ExpertWorkerClient(service.address) as client:
        early = await client.describe()
        assert early.state in (pb.WORKER_STATE_LOADING, pb.WORKER_STATE_READY)
        assert early.worker_id == "w"
        await service.wait_ready()
        assert await health(service.address) == SERVING
        ready = await client.describe()
        assert ready.state == pb.WORKER_STATE_READY
        assert [(e.layer, list(e.experts)) for e in ready.experts] == [(layer, [0, 1, 5])]
        assert (ready.experts_loaded, ready.experts_assigned) == (3, 3)
        assert ready.fingerprint == model.numerics.fingerprint
        assert (ready.dtype, ready.hidden_size) == ("float32", model.config.hidden_size)
        assert ready.memory_bytes > 0 and ready.model_hash and ready.metrics_address

        more = await client.load(FIRST, {layer: [3, 5], layer + 1: [2]})
        assert [list(e.experts) for e in more.experts] == [[0, 1, 3, 5], [2]]
        assert (more.experts_loaded, more.experts_assigned) == (5, 5)
        assert (more.epoch.term, more.epoch.counter) == (3, 1)
        again = await client.load(FIRST, {layer: [3]})
        assert again.experts_loaded == 5

        less = await client.evict(Epoch(term=3, counter=2), {layer: [0, 9], layer + 1: [2]})
        assert [(e.layer, list(e.experts)) for e in less.experts] == [(layer, [1, 3, 5])]
        assert less.memory_bytes == ready.memory_bytes

        for call in (client.load, client.evict):
            with pytest.raises(StaleEpochError):
                await call(FIRST, {layer: [7]})
            with pytest.raises(InvalidRequestError):
                await call(Epoch(term=4, counter=0), {0: [7]})
            with pytest.raises(InvalidRequestError):
                await call(Epoch(term=4, counter=0), {layer: [999]})
        assert [list(e.experts) for e in (await client.describe()).experts] == [[1, 3, 5]]

        heard = await client.describe(term=9)
        assert (heard.term, heard.epoch.term) == (9, 4)
        assert (await client.describe(term=8)).term == 9
        for call in (client.load, client.evict):
            with pytest.raises(StaleEpochError):
                await call(Epoch(term=8, counter=1), {layer: [1, 7]})
        assert [list(e.experts) for e in (await client.describe()).experts] == [[1, 3, 5]]
        await client.evict(Epoch(term=9, counter=0), {layer: [1]})

        with pytest.raises(InvalidRequestError):
            await client.drain(0)
        assert await client.drain(1.0)
        assert (await client.describe()).state == pb.WORKER_STATE_DRAINING
        assert await health(service.address) == NOT_SERVING
    await service.stop()
    await service.stop()


def test_moved_experts_give_the_same_bits(model: ExpertModel) -> None:
    run_async(_moved(model))


async def _moved(model: ExpertModel) -> None:
    """Loads in odd order, evicts, loads again: slots move, bits do not."""
    config = model.config
    layer = config.moe_layers[0]
    everything = {number: range(config.n_routed_experts) for number in config.moe_layers}
    async with serving(model.path, {"w": {layer: [9, 2]}}) as services:
        service = services["w"]
        await service.load(FIRST, {layer: [15, 0, 8]})
        await service.evict(FIRST, {layer: [2, 8]})
        await service.load(FIRST, everything)
        remote = model.remote()
        epoch = Epoch(term=3, counter=4)
        remote.set_placement(
            placement(config, {"w": everything}, {"w": service.address}, epoch=epoch)
        )
        await all_live(remote, config)
        await compare_rows(model, remote, layer, 40)
        await remote.close()


def test_token_counts_are_shown(model: ExpertModel) -> None:
    run_async(_counts(model))


async def _counts(model: ExpertModel) -> None:
    config = model.config
    layer = config.moe_layers[0]
    grid = expert_major(config, 1)
    async with serving(model.path, grid) as services:
        service = services["expert-0"]
        remote = model.remote()
        remote.set_placement(placement(config, grid, {"expert-0": service.address}))
        await all_live(remote, config)
        x, idx, weights = model.rows(25, seed=4)
        await (await remote.dispatch(layer, x, idx, weights, None))
        page = await asyncio.to_thread(get_json, service.metrics_address, "/debug/experts")
        assert isinstance(page, dict)
        counted = idx.flatten().bincount(minlength=config.n_routed_experts).tolist()
        assert page["tokens"][str(layer)] == counted
        assert page["held"][str(layer)] == list(range(config.n_routed_experts))
        assert service.describe().tokens_total == idx.numel()
        await remote.close()


def test_a_broken_checkpoint_fails_the_worker(model: ExpertModel, tmp_path: Path) -> None:
    run_async(_broken(tmp_path))


async def _broken(path: Path) -> None:
    service = WorkerService(WorkerConfig(worker_id="w", model=path, experts={}))
    await service.start()
    with pytest.raises(InternalError, match="config.json"):
        await service.wait_ready()
    assert service.state is WorkerState.FAILED
    assert await health(service.address) == NOT_SERVING
    async with ExpertWorkerClient(service.address) as client:
        description = await client.describe()
        assert description.state == pb.WORKER_STATE_FAILED
        assert "config.json" in description.error
        with pytest.raises(InternalError):
            await client.load(FIRST, {1: [0]})
    await service.stop()


def test_a_taken_port_is_named(model: ExpertModel) -> None:
    run_async(_taken_port(model))


async def _taken_port(model: ExpertModel) -> None:
    async with serving(model.path, {"w": {}}) as services:
        listen = services["w"].address
        config = WorkerConfig(worker_id="x", model=model.path, experts={}, listen=listen)
        with pytest.raises(ListenError, match=listen):
            await WorkerService(config).start()


def test_a_client_of_nobody_is_told_so() -> None:
    run_async(_nobody())


async def _nobody() -> None:
    async with ExpertWorkerClient("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError):
            await client.describe(timeout_s=2)


def test_a_stream_that_breaks_off_leaves_nothing_behind(model: ExpertModel) -> None:
    run_async(_break_off(model))


async def _break_off(model: ExpertModel) -> None:
    async with serving(model.path, expert_major(model.config, 1)) as services:
        service = services["expert-0"]
        for _ in range(5):
            async with open_channel(service.address) as channel:
                stream = dispatch_stream(channel)()
                for number in range(20):
                    await stream.write(encode_request(request(model, number + 1, rows=50)))
                stream.cancel()
        assert await service.drain(10.0)


def test_statuses_reach_a_foreign_client(model: ExpertModel) -> None:
    run_async(_foreign(model))


async def _foreign(model: ExpertModel) -> None:
    """A client that knows gRPC but not our metadata sees a fitting status."""
    async with (
        serving(model.path, {"w": {}}) as services,
        grpc.aio.insecure_channel(services["w"].address) as channel,
    ):
        load = channel.unary_unary(
            "/orrery.v1.ExpertWorker/Load",
            request_serializer=pb.LoadRequest.SerializeToString,
            response_deserializer=pb.WorkerDescription.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await load(pb.LoadRequest(experts=[pb.LayerExperts(layer=77)]), timeout=10)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
