"""What dispatch and combine add to gRPC: a round trip over a bare grpcio stream echo.

Both sides run by turns in one process: an echo of as many bytes to as many processes, and a
dispatch of rows with one expert at each of as many workers, whose experts are the identity. The
bar is 1.3 at 4 workers and one row of Kimi K2 (14 KB).

    python -m benchmarks.bench_dispatch --out dispatch.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from prometheus_client import CollectorRegistry

from benchmarks.dispatch_peer import NUMERICS, ROW, bench_config
from kimi_k2.config import ModelConfig
from monitoring.metrics import RouterMetrics
from router_service.dispatch import RemoteExperts
from wire.channels import open_channel
from wire.placement import Epoch, Placement, WorkerAddress
from wire.services import dispatch_stream

REPOSITORY = Path(__file__).parents[1]
BAR = 1.3

Round = Callable[[], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Side:
    """Medians over blocks of rounds; a message is a request and its answer.

    round_ms: one round trip to all peers.
    here_ms, there_ms: processor time a message, of this process and of its peer.
    """

    round_ms: float
    here_ms: float
    there_ms: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """One case; `ratio` is the median over pairs of neighbouring blocks."""

    workers: int
    rows: int
    payload_bytes: int
    echo: Side
    dispatch: Side
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Peers:
    addresses: tuple[str, ...]
    processes: tuple[psutil.Process, ...]

    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


@contextlib.contextmanager
def peers(kind: str, model: Path, workers: int) -> Iterator[Peers]:
    """So many processes, listening; gone at the end."""
    command = [sys.executable, "-m", "benchmarks.dispatch_peer", kind, "--model", str(model)]
    command += ["--experts", str(workers), "--top-k", str(workers), "--of", str(workers)]
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(workers):
            process = subprocess.Popen(
                [*command, "--number", str(number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=REPOSITORY,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        lines = [process.stdout.readline().strip() for process in started if process.stdout]
        if not all(lines):
            raise RuntimeError(f"a peer did not start: {lines}")
        yield Peers(
            addresses=tuple(lines),
            processes=tuple(psutil.Process(process.pid) for process in started),
        )


@contextlib.asynccontextmanager
async def echo_round(echo: Peers, payload: bytes) -> AsyncIterator[Round]:
    async with contextlib.AsyncExitStack() as stack:
        streams = []
        for address in echo.addresses:
            channel = await stack.enter_async_context(open_channel(address))
            stream = dispatch_stream(channel)()
            stack.callback(stream.cancel)
            streams.append(stream)

        async def once() -> None:
            for stream in streams:
                await stream.write(payload)
            for stream in streams:
                await stream.read()

        yield once


@contextlib.asynccontextmanager
async def dispatch_round(workers: Peers, config: ModelConfig, rows: int) -> AsyncIterator[Round]:
    experts = RemoteExperts(config, NUMERICS, "bench", RouterMetrics(CollectorRegistry()))
    ids = [f"expert-{number}" for number in range(len(workers.addresses))]
    known = {
        worker: WorkerAddress(worker_id=worker, address=address, fingerprint="", node="here")
        for worker, address in zip(ids, workers.addresses, strict=True)
    }
    owners = {layer: tuple((worker,) for worker in ids) for layer in config.moe_layers}
    experts.set_placement(Placement(epoch=Epoch(term=1, counter=1), workers=known, owners=owners))
    if not await experts.settled(20.0):
        raise RuntimeError("the workers cannot be used")
    layer = config.moe_layers[0]
    x = torch.randn(rows, ROW).to(NUMERICS.dtype)
    idx = torch.arange(len(ids)).repeat(rows, 1)
    weights = torch.full((rows, len(ids)), 1 / len(ids))

    async def once() -> None:
        await (await experts.dispatch(layer, x, idx, weights, None))

    try:
        yield once
    finally:
        await experts.close()


async def block(once: Round, rounds: int, there: Peers) -> Side:
    messages = rounds * len(there.addresses)
    cpu_here, cpu_there = time.process_time(), there.cpu_s()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        await once()
        times.append(time.perf_counter() - began)
    return Side(
        round_ms=1e3 * statistics.median(times),
        here_ms=1e3 * (time.process_time() - cpu_here) / messages,
        there_ms=1e3 * (there.cpu_s() - cpu_there) / messages,
    )


async def measure(model: Path, workers: int, rows: int, seconds: float) -> Line:
    payload = bytes(2 * ROW * rows)
    config = bench_config(model, workers, workers)
    with peers("echo", model, workers) as echo, peers("worker", model, workers) as real:
        async with (
            echo_round(echo, payload) as plain,
            dispatch_round(real, config, rows) as ours,
        ):
            for _ in range(20):
                await plain()
                await ours()
            pairs: list[tuple[Side, Side]] = []
            ends = time.perf_counter() + seconds
            while time.perf_counter() < ends or len(pairs) < 3:
                pairs.append((await block(plain, 50, echo), await block(ours, 50, real)))
    return Line(
        workers=workers,
        rows=rows,
        payload_bytes=len(payload),
        echo=middle([a for a, _ in pairs]),
        dispatch=middle([b for _, b in pairs]),
        ratio=statistics.median(b.round_ms / a.round_ms for a, b in pairs),
    )


def middle(sides: Sequence[Side]) -> Side:
    return Side(
        round_ms=statistics.median(side.round_ms for side in sides),
        here_ms=statistics.mean(side.here_ms for side in sides),
        there_ms=statistics.mean(side.there_ms for side in sides),
    )


def hardware() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.partition(":")[2].strip() for line in names if "model name" in line), "")
    return {"cpu": model or platform.processor(), "cores": os.cpu_count()}


def show(line: Line) -> str:
    return (
        f"{line.workers} workers, {line.payload_bytes / 1024:6.0f} KiB:"
        f" echo {line.echo.round_ms:.2f} ms, dispatch {line.dispatch.round_ms:.2f} ms,"
        f" ratio {line.ratio:.2f}; CPU a message, router {line.dispatch.here_ms:.3f}"
        f" (echo {line.echo.here_ms:.3f}), worker {line.dispatch.there_ms:.3f}"
        f" (echo {line.echo.there_ms:.3f}) ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="dispatch and combine over a bare gRPC echo")
    parser.add_argument("--model", type=Path, default=REPOSITORY / "models/nano-k2")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32, 293])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each case")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    with torch.inference_mode():
        for workers in arguments.workers:
            for rows in arguments.rows:
                line = asyncio.run(measure(arguments.model, workers, rows, arguments.seconds))
                print(show(line), flush=True)
                lines.append(line)
    for line in lines:
        if (line.workers, line.rows) == (4, 1):
            verdict = "met" if line.ratio <= BAR else "missed"
            print(f"ratio at 4 workers and 14 KB: {line.ratio:.2f}, bar {BAR}: {verdict}")
    if arguments.out:
        record = {
            "command": sys.orig_argv,
            "hardware": hardware(),
            "bar": BAR,
            "lines": [asdict(line) for line in lines],
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
