"""Links come and go with placements, and leave nothing behind."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, generate_latest

from monitoring.metrics import RouterMetrics
from router_service.dispatch import RemoteExperts
from tests.support.deadline import run_async, wait_until_async
from tests.support.dispatching import compare_rows
from tests.support.expert_workers import ExpertModel, Grid, placement, serving
from wire.placement import Epoch


def test_links_to_nobody_do_not_pile_up(model: ExpertModel) -> None:
    run_async(_nobody_there(model))


async def _nobody_there(model: ExpertModel) -> None:
    """A worker serves while one placement after another names only workers that never come."""
    config = model.config
    layer = config.moe_layers[0]
    everything = {number: range(config.n_routed_experts) for number in config.moe_layers}
    registry = CollectorRegistry()
    remote = RemoteExperts(config, model.numerics, "router-test", RouterMetrics(registry))
    async with serving(model.path, {"first": everything}) as services:
        address = services["first"].address
        remote.set_placement(placement(config, {"first": everything}, {"first": address}))
        assert await remote.settled(30)
        for number in range(2, 22):
            grid: Grid = {f"worker-{number}": everything}
            addresses = {f"worker-{number}": "127.0.0.1:1"}
            epoch = Epoch(term=1, counter=number)
            remote.set_placement(placement(config, grid, addresses, epoch=epoch))
            await asyncio.sleep(0.005)
        assert set(remote.snapshot()["workers"]) == {"first", "worker-21"}
        await compare_rows(model, remote, layer, 5)
        async with serving(model.path, {"last": everything}) as others:
            addresses = {"last": others["last"].address}
            epoch = Epoch(term=2, counter=1)
            remote.set_placement(placement(config, {"last": everything}, addresses, epoch=epoch))
            assert await remote.settled(30)
            await compare_rows(model, remote, layer, 5)

            def named() -> set[str]:
                text = generate_latest(registry).decode()
                return {part.split('"')[0] for part in text.split('worker="')[1:]}

            await wait_until_async(lambda: named() == {"last"}, "series of former workers to go")
            await remote.close()
