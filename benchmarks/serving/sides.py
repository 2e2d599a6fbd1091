"""The sides of a comparison, started."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.float32_checkpoint import write_float32
from benchmarks.serving.arguments import shape_of
from benchmarks.serving.cluster import cluster, gateway, local_router
from benchmarks.serving.grpc_side import grpc_side
from benchmarks.serving.http_side import HttpSide
from benchmarks.serving.load import Side
from benchmarks.serving.peer_side import PEERS, peer_side


@asynccontextmanager
async def open_sides(
    arguments: argparse.Namespace, only: Sequence[str]
) -> AsyncIterator[list[Side]]:
    """Every side in `only`, idle; `arguments` as `serving.arguments.add_sides` reads them."""
    model: Path = arguments.model
    async with AsyncExitStack() as stack:
        sides: list[Side] = []
        if {"cluster", "cluster-http"} & set(only):
            running = await stack.enter_async_context(cluster(shape_of(arguments)))
            router = running.router.address
            if "cluster" in only:
                sides.append(await stack.enter_async_context(grpc_side("cluster", router)))
            if "cluster-http" in only:
                place = await stack.enter_async_context(gateway(model, router))
                http = HttpSide(name="cluster-http", address=place.address, model=model.name)
                sides.append(http)
        if "in-process" in only:
            local = await stack.enter_async_context(local_router(model, arguments.local_threads))
            sides.append(await stack.enter_async_context(grpc_side("in-process", local.address)))
        if others := [name for name in PEERS if name in only]:
            weights = arguments.weights
            if weights is None:
                weights = Path(stack.enter_context(TemporaryDirectory())) / model.name
            if not (weights / "config.json").exists():
                await asyncio.to_thread(write_float32, model, weights)
            for name in others:
                sides.append(
                    await stack.enter_async_context(peer_side(name, weights, arguments.peers))
                )
        yield sides
