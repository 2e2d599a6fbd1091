"""Routers of several micro-batch limits over the same workers, laid out anew at will.

Every worker holds every expert, so that a layout is only a placement: nothing is loaded or
started between two measurements, and they can take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

import psutil

from benchmarks.placement.steady import Steady, steady
from benchmarks.serving.cluster import ClusterShape, described, expert_workers, remote_router
from benchmarks.serving.load import batch
from kimi_k2.config import ModelConfig
from wire.clients.generate import GenerateStream
from wire.clients.router import RouterClient
from wire.placement import Epoch, Placement, WorkerAddress

Owners = Mapping[int, tuple[tuple[str, ...], ...]]

ROUTER = "router"
_SETTLE_S = 0.3


class Fleet:
    """One router a micro-batch limit; all idle but the one that is measured."""

    def __init__(
        self,
        clients: Mapping[int, RouterClient],
        streams: Mapping[int, GenerateStream],
        processes: Mapping[int, Mapping[str, psutil.Process]],
        workers: Mapping[str, WorkerAddress],
        vocab_size: int,
    ) -> None:
        self._clients = clients
        self._streams = streams
        self._processes = processes
        self._workers = workers
        self._vocab_size = vocab_size
        self._epochs = count(1)
        self._runs = count()

    async def run(
        self, micro_batches: int, owners: Owners, rows: int, tokens: int, *, prompt_tokens: int
    ) -> Steady:
        """One run of `rows` streams of `tokens` tokens each, dispatched by `owners`."""
        placement = Placement(
            epoch=Epoch(term=1, counter=next(self._epochs)), workers=self._workers, owners=owners
        )
        await self._clients[micro_batches].set_placement(placement)
        await asyncio.sleep(_SETTLE_S)
        number = next(self._runs)
        asks = batch(
            rows,
            prompt_tokens=prompt_tokens,
            max_tokens=tokens,
            vocab_size=self._vocab_size,
            seed=f"placement {number}",
        )
        stream, processes = self._streams[micro_batches], self._processes[micro_batches]
        return await steady(stream, asks, processes, f"run-{number}")


@asynccontextmanager
async def open_fleet(shape: ClusterShape, micro_batches: Sequence[int]) -> AsyncIterator[Fleet]:
    """`shape.workers` workers with every expert, and a router for each of `micro_batches`."""
    config = ModelConfig.from_dir(shape.model)
    everything = {layer: list(range(config.n_routed_experts)) for layer in config.moe_layers}
    names = [f"expert-{number}" for number in range(shape.workers)]
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            expert_workers(shape, dict.fromkeys(names, everything))
        )
        workers = {name: psutil.Process(worker.pid) for name, worker in running.items()}
        clients: dict[int, RouterClient] = {}
        streams: dict[int, GenerateStream] = {}
        processes: dict[int, dict[str, psutil.Process]] = {}
        for limit in micro_batches:
            router = await stack.enter_async_context(remote_router(shape, limit))
            clients[limit] = await stack.enter_async_context(RouterClient(router.address))
            streams[limit] = clients[limit].generate()
            stack.push_async_callback(streams[limit].close)
            processes[limit] = {ROUTER: psutil.Process(router.pid), **workers}
        yield Fleet(clients, streams, processes, await described(running), config.vocab_size)
