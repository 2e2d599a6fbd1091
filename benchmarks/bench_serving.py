"""`python -m benchmarks.bench_serving`: the cluster against engines in one process."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.float32_checkpoint import write_float32
from benchmarks.serving.arguments import SIDES, parser
from benchmarks.serving.cluster import ClusterShape, cluster, gateway, local_router
from benchmarks.serving.compare import Rounds, Work, compare
from benchmarks.serving.grpc_side import grpc_side
from benchmarks.serving.http_side import HttpSide
from benchmarks.serving.load import Side
from benchmarks.serving.peer_side import PEERS, peer_side
from benchmarks.serving.quiet import Quiet
from benchmarks.serving.replay import Scale, replay
from benchmarks.serving.report import bar_lines, bars, ratio_lines, table, write_json
from kimi_k2.config import ModelConfig

_SETTINGS = (
    *("placement", "workers", "micro_batches"),
    *("router_threads", "worker_threads", "local_threads"),
)
_QUICK = ("cluster", "in-process")
Peers = dict[str, dict[str, str]]


def main() -> int:
    """0: measured; bars that are missed are printed, not a failure."""
    arguments = parser().parse_args()
    quick = arguments.quick
    if arguments.plot and not arguments.json:
        sys.exit("bench_serving: --plot draws what --json writes; give both")
    only = tuple(arguments.only.split(",")) if arguments.only else (_QUICK if quick else SIDES)
    if unknown := set(only) - set(SIDES):
        sys.exit(f"bench_serving: no side {', '.join(sorted(unknown))}; known: {', '.join(SIDES)}")
    vocab_size = ModelConfig.from_dir(arguments.model).vocab_size
    scale = Scale(requests=arguments.replay_requests, span_s=arguments.replay_seconds)
    asks = replay(arguments.replay, scale, vocab_size) if arguments.replay else []
    work = Work(
        concurrent=tuple(
            map(int, (arguments.concurrent or ("1,32" if quick else "1,8,32")).split(","))
        ),
        prompt_tokens=arguments.prompt_tokens,
        max_tokens=arguments.max_tokens or (24 if quick else 128),
        rounds=arguments.rounds or (1 if quick else 5),
        vocab_size=vocab_size,
        replay=tuple(asks),
    )
    before = os.getloadavg()[0]
    rounds, peers = asyncio.run(_measure(arguments, only, work))
    print(f"\n{table(rounds)}\n\n{ratio_lines(rounds)}\n\n{bar_lines(bars(rounds))}")
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in _SETTINGS}
        settings["grid"] = str(_shape(arguments).blueprint().plan.grid)
        load = (before, os.getloadavg()[0])
        write_json(arguments.json, rounds, work, settings, load, peers)
        if arguments.plot:
            from benchmarks.serving.plot import plot

            plot(arguments.json, arguments.plot)
    return 0


async def _measure(
    arguments: argparse.Namespace, only: Sequence[str], work: Work
) -> tuple[Rounds, Peers]:
    quiet = Quiet(wait_s=arguments.quiet_wait, tries=arguments.quiet_tries)
    stop = asyncio.current_task()
    if stop is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.cancel)
    async with _sides(arguments, only) as sides:
        rounds = await compare(sides, work, quiet)
    return rounds, {side.name: dict(side.versions) for side in sides if side.versions}


@asynccontextmanager
async def _sides(arguments: argparse.Namespace, only: Sequence[str]) -> AsyncIterator[list[Side]]:
    """Every side that was asked for, started and idle."""
    model: Path = arguments.model
    async with AsyncExitStack() as stack:
        sides: list[Side] = []
        if {"cluster", "cluster-http"} & set(only):
            router = await stack.enter_async_context(cluster(_shape(arguments)))
            if "cluster" in only:
                sides.append(await stack.enter_async_context(grpc_side("cluster", router)))
            if "cluster-http" in only:
                place = await stack.enter_async_context(gateway(model, router))
                sides.append(HttpSide(name="cluster-http", address=place, model=model.name))
        if "in-process" in only:
            router = await stack.enter_async_context(local_router(model, arguments.local_threads))
            sides.append(await stack.enter_async_context(grpc_side("in-process", router)))
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


def _shape(arguments: argparse.Namespace) -> ClusterShape:
    return ClusterShape(
        model=arguments.model,
        placement=arguments.placement,
        workers=arguments.workers,
        micro_batches=arguments.micro_batches,
        router_threads=arguments.router_threads,
        worker_threads=arguments.worker_threads,
    )


if __name__ == "__main__":
    sys.exit(main())
