"""Expert workers on the test's own event loop, behind real gRPC, in several grids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from experts_service.config import WorkerConfig
from experts_service.service import WorkerService
from kimi_k2.config import ModelConfig
from kimi_k2.model import Model
from monitoring.metrics import RouterMetrics
from router_service.dispatch import DispatchOptions, RemoteExperts
from tests.support.deadline import wait_until_async
from wire.carriers.carrier import CarrierChoice
from wire.placement import Epoch, Placement, WorkerAddress

Owners = Mapping[int, tuple[tuple[str, ...], ...]]
Grid = Callable[[ModelConfig, tuple[str, ...]], Owners]


def expert_major(config: ModelConfig, workers: tuple[str, ...]) -> Owners:
    """Every layer's experts spread over all workers."""
    return {
        layer: tuple((workers[e % len(workers)],) for e in range(config.n_routed_experts))
        for layer in config.moe_layers
    }


def layer_major(config: ModelConfig, workers: tuple[str, ...]) -> Owners:
    """All experts of a layer at one worker."""
    return {
        layer: ((workers[index % len(workers)],),) * config.n_routed_experts
        for index, layer in enumerate(config.moe_layers)
    }


def mixed(config: ModelConfig, workers: tuple[str, ...]) -> Owners:
    """Layer-major and expert-major layers by turns, and every third expert with a replica."""
    whole, spread = layer_major(config, workers), expert_major(config, workers)
    owners = {}
    for index, layer in enumerate(config.moe_layers):
        base = (whole if index % 2 else spread)[layer]
        owners[layer] = tuple(
            tuple(dict.fromkeys((*ids, workers[-1]))) if expert % 3 == 0 else ids
            for expert, ids in enumerate(base)
        )
    return owners


def placement(owners: Owners, workers: Mapping[str, WorkerService], counter: int = 1) -> Placement:
    return Placement(
        epoch=Epoch(term=1, counter=counter),
        workers={
            worker_id: WorkerAddress(
                worker_id=worker_id,
                address=service.address,
                fingerprint=service.describe().fingerprint,
                node="test",
            )
            for worker_id, service in workers.items()
        },
        owners=owners,
    )


@asynccontextmanager
async def started_workers(
    checkpoint: Path, owners: Owners, count: int, device: str = "cpu"
) -> AsyncIterator[dict[str, WorkerService]]:
    """Workers that hold what `owners` gives them, ready; stopped afterwards."""
    plan = Placement(epoch=Epoch(term=0, counter=0), workers={}, owners=owners)
    workers = {
        worker_id: WorkerService(
            WorkerConfig(
                worker_id=worker_id,
                model=checkpoint,
                experts=plan.experts_of(worker_id),
                device=device,
            )
        )
        for worker_id in worker_ids(count)
    }
    try:
        for service in workers.values():
            await service.start()
        await asyncio.gather(*(service.wait_ready() for service in workers.values()))
        yield workers
    finally:
        await asyncio.gather(*(service.stop() for service in workers.values()))


@asynccontextmanager
async def remote_experts(
    checkpoint: Path, model: Model, grid: Grid, count: int, carrier: CarrierChoice = "auto"
) -> AsyncIterator[RemoteExperts]:
    """Experts of `model` at `count` workers, all of them live."""
    owners = grid(model.config, worker_ids(count))
    async with started_workers(checkpoint, owners, count, str(model.numerics.device)) as workers:
        experts = RemoteExperts(
            model.config,
            model.numerics,
            "router-0",
            RouterMetrics(CollectorRegistry()),
            DispatchOptions(carrier=carrier),
        )
        experts.set_placement(placement(owners, workers))
        try:
            await wait_until_async(lambda: all_live(experts, model.config), "experts", 20.0)
            yield experts
        finally:
            await experts.close()


def worker_ids(count: int) -> tuple[str, ...]:
    return tuple(f"expert-{number}" for number in range(count))


def all_live(experts: RemoteExperts, config: ModelConfig) -> bool:
    return all(
        experts.is_live(layer, expert)
        for layer in config.moe_layers
        for expert in range(config.n_routed_experts)
    )
