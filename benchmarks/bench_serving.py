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

SIDES = ("cluster", "cluster-http", "in-process", *PEERS)
_SETTINGS = (
    *("placement", "workers", "micro_batches"),
    *("router_threads", "worker_threads", "local_threads"),
)
_QUICK = ("cluster", "in-process")
Peers = dict[str, dict[str, str]]
_NANO = Path(__file__).resolve().parents[1] / "models" / "nano-k2"


def main() -> int:
    """0: measured; bars that are missed are printed, not a failure."""
    arguments = _parser().parse_args()
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
            weights = Path(stack.enter_context(TemporaryDirectory())) / model.name
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_serving",
        description="Tokens/s, TTFT and ITL of the cluster and its rivals, in interleaved rounds.",
        epilog="example: python -m benchmarks.bench_serving --quick --placement 2x2",
    )
    add = parser.add_argument
    add("--model", type=Path, default=_NANO, help="checkpoint directory; default: nano-K2")
    add("--only", default="", help=f"sides, by commas: {','.join(SIDES)}")
    add("--quick", action="store_true", help="cluster and in-process, 24 tokens, one round")
    add("--concurrent", default="", help="requests at a time; default 1,8,32, quick 1,32")
    add("--prompt-tokens", type=int, default=64)
    add("--max-tokens", type=int, default=0, help="of each answer; default 128, quick 24")
    add("--rounds", type=int, default=0, help="default 5, quick 1")
    add("--placement", default="auto", help="auto, expert-major, layer-major, 2x2 ...")
    add("--workers", type=int, default=4, help="expert workers of the cluster")
    add("--micro-batches", type=int, help="in flight; default: the cluster config's")
    add("--router-threads", type=int, default=1)
    add("--worker-threads", type=int, default=1)
    add("--local-threads", type=int, help="of the in-process engine; default: torch's own")
    add("--quiet-wait", type=float, default=0.0, help="most seconds to wait for a quiet machine")
    add("--quiet-tries", type=int, default=1, help="runs at most until others leave one alone")
    add("--peers", type=Path, default=Path(".venv-peers"), help="made by `make bench-peers`")
    add("--replay", type=Path, metavar="TRACE", help="replay its arrivals too, scaled down")
    add("--replay-requests", type=int, default=64, help="the first so many of the trace")
    add("--replay-seconds", type=float, default=60.0, help="their arrivals are pressed into")
    add("--json", type=Path, help="file to write")
    add("--plot", type=Path, help="picture of the --json file to write; needs the bench extra")
    return parser


if __name__ == "__main__":
    sys.exit(main())
