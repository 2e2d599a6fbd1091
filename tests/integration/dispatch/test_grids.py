"""Whatever the grid, experts behind gRPC give the bits of experts in this process."""

from __future__ import annotations

import asyncio

import pytest
import torch

from router_service.dispatch import DispatchOptions
from tests.support.deadline import run_async
from tests.support.dispatching import compare_rows
from tests.support.expert_workers import (
    ExpertModel,
    Grid,
    all_live,
    expert_major,
    layer_major,
    mixed,
    placement,
    serving,
)
from wire.carriers.carrier import CarrierChoice

GRIDS = {
    f"{make.__name__}-{workers}": (make, workers)
    for make in (expert_major, layer_major, mixed)
    for workers in (1, 3, 4)
}


@pytest.mark.parametrize("carrier", ["inline", "local"])
@pytest.mark.parametrize("name", GRIDS)
def test_bits_equal_local(model: ExpertModel, name: str, carrier: CarrierChoice) -> None:
    make, workers = GRIDS[name]
    run_async(_compare(model, make(model.config, workers), carrier))


async def _compare(model: ExpertModel, grid: Grid, carrier: CarrierChoice) -> None:
    async with serving(model.path, grid) as services:
        remote = model.remote(DispatchOptions(carrier=carrier))
        addresses = {w: s.address for w, s in services.items()}
        remote.set_placement(placement(model.config, grid, addresses, model.numerics.fingerprint))
        await all_live(remote, model.config)
        for layer in model.config.moe_layers:
            for number in (1, 2, 3, 5, 17, 64, 200):
                await compare_rows(model, remote, layer, number)
        # Several at a time, as micro-batches in flight are.
        async with asyncio.TaskGroup() as group:
            for layer in model.config.moe_layers:
                for number in (1, 4, 33):
                    group.create_task(compare_rows(model, remote, layer, number))
        await remote.close()


def test_two_routers_at_one_worker(model: ExpertModel) -> None:
    run_async(_two_routers(model))


async def _two_routers(model: ExpertModel) -> None:
    grid = expert_major(model.config, 1)
    layer = model.config.moe_layers[0]
    async with serving(model.path, grid) as services:
        addresses = {w: s.address for w, s in services.items()}
        routers = [model.remote(), model.remote()]
        for router in routers:
            router.set_placement(placement(model.config, grid, addresses))
            await all_live(router, model.config)
        async with asyncio.TaskGroup() as group:
            for round_ in range(10):
                for router in routers:
                    group.create_task(compare_rows(model, router, layer, 1 + round_, seed=round_))
        for router in routers:
            await router.close()


def test_messages_rows_and_tokens_are_as_few_as_they_can_be(model: ExpertModel) -> None:
    run_async(_counts(model))


async def _counts(model: ExpertModel) -> None:
    config = model.config
    grid = layer_major(config, 2)
    first = config.moe_layers[0]
    async with serving(model.path, grid) as services:
        addresses = {w: s.address for w, s in services.items()}
        remote = model.remote()
        remote.set_placement(placement(config, grid, addresses))
        await all_live(remote, config)
        x, idx, weights = model.rows(20, seed=3)
        await (await remote.dispatch(first, x, idx, weights, None))
        workers = remote.snapshot()["workers"]
        assert workers["expert-0"]["messages"] == 1
        assert workers["expert-1"]["messages"] == 0
        # One combined row back for each row, not one an expert.
        row_bytes = 20 * config.hidden_size * x.element_size()
        assert row_bytes <= workers["expert-0"]["bytes_received"] < row_bytes + 200
        tokens = remote.expert_tokens()
        assert tokens.shape == (len(config.moe_layers), config.n_routed_experts)
        expected = torch.bincount(idx.flatten(), minlength=config.n_routed_experts)
        assert tokens[0].tolist() == expected.tolist()
        assert tokens[1:].sum() == 0
        assert services["expert-0"].describe().tokens_total == idx.numel()
        await remote.close()
