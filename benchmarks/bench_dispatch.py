"""What dispatch and combine cost over both carriers, against bare echoes of as many bytes.

All sides run by turns in one process: a raw TCP echo and a bare grpcio stream echo by as many
processes as there are workers, and a dispatch of rows with one expert at each worker, whose
experts are the identity. The bar is 1.3 times the grpcio echo at 4 workers and one row of Kimi K2
(14 KB).

    python -m benchmarks.bench_dispatch --out dispatch.json --plot dispatch.png
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.dispatch_sides import GRPC, REPOSITORY, SIDES, TCP, Case, Way, ways
from benchmarks.record import hardware, write_record
from wire.carriers.carrier import INLINE, LOCAL

BAR = 1.3
_LOOK_S = 0.4


@dataclass(frozen=True, kw_only=True)
class Side:
    """round_ms: one round trip to all peers, the median. here_ms, there_ms: processor time a
    message (a request and its answer), of this process and of its peer."""

    round_ms: float
    here_ms: float
    there_ms: float


@dataclass(frozen=True, kw_only=True)
class Line:
    """One case. ratios: "inline / grpc echo" and the like; each is the median over the ratios of
    neighbouring blocks, so that what else the machine does hits both."""

    workers: int
    rows: int
    payload_bytes: int
    sides: dict[str, Side]
    ratios: dict[str, float]


async def measure(case: Case, seconds: float) -> Line:
    turns: list[dict[str, Side]] = []
    async with ways(case) as found:
        rounds = await rounds_of_a_block(found)
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends or len(turns) < 3:
            order = list(found) if len(turns) % 2 else list(reversed(found))
            turns.append(
                {name: await block(found[name], rounds[name], case.workers) for name in order}
            )
    return Line(
        workers=case.workers,
        rows=case.rows,
        payload_bytes=case.payload_bytes,
        sides={name: middle([turn[name] for turn in turns]) for name in SIDES},
        ratios={
            f"{ours} / {echo}": statistics.median(
                turn[ours].round_ms / turn[echo].round_ms for turn in turns
            )
            for ours in (INLINE, LOCAL)
            for echo in (GRPC, TCP)
        },
    )


async def rounds_of_a_block(found: dict[str, Way]) -> dict[str, int]:
    """So many that the processes' clocks, which tick a hundred times a second, tell something."""
    rounds = {}
    for name, way in found.items():
        began = time.perf_counter()
        for _ in range(5):
            await way.once()
        rounds[name] = max(20, int(5 * _LOOK_S / (time.perf_counter() - began)))
    return rounds


async def block(way: Way, rounds: int, workers: int) -> Side:
    here, there = way.processor_s()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        await way.once()
        times.append(time.perf_counter() - began)
    here_later, there_later = way.processor_s()
    messages = rounds * workers
    return Side(
        round_ms=1e3 * statistics.median(times),
        here_ms=1e3 * (here_later - here) / messages,
        there_ms=1e3 * (there_later - there) / messages,
    )


def middle(sides: Sequence[Side]) -> Side:
    return Side(
        round_ms=statistics.median(side.round_ms for side in sides),
        here_ms=statistics.median(side.here_ms for side in sides),
        there_ms=statistics.median(side.there_ms for side in sides),
    )


def show(line: Line) -> str:
    rows = [f"{line.workers} workers, {line.payload_bytes / 1024:.0f} KiB"]
    rows += [
        f"  {name:9}  {side.round_ms:8.3f} ms, processor ms a message:"
        f" here {side.here_ms:.3f}, there {side.there_ms:.3f}"
        for name, side in line.sides.items()
    ]
    rows.append("  " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in line.ratios.items()))
    return "\n".join(rows)


def verdict(lines: Sequence[Line]) -> str:
    found = [
        f"{ours} {ratio:.2f} ({'met' if ratio <= BAR else 'missed'})"
        for line in lines
        if (line.workers, line.rows) == (4, 1)
        for ours in (INLINE, LOCAL)
        for ratio in (line.ratios[f"{ours} / {GRPC}"],)
    ]
    return f"over a grpc echo at 4 workers and 14 KB, bar {BAR}: " + ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="dispatch and combine over bare echoes")
    parser.add_argument("--model", type=Path, default=REPOSITORY / "models/nano-k2")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32, 293])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each case, for all sides")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--plot", type=Path, help="picture of them (needs the extra bench)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    with torch.inference_mode():
        for workers in arguments.workers:
            for rows in arguments.rows:
                case = Case(model=arguments.model, workers=workers, rows=rows)
                lines.append(asyncio.run(measure(case, arguments.seconds)))
                print(show(lines[-1]), flush=True)
    if any((line.workers, line.rows) == (4, 1) for line in lines):
        print(verdict(lines))
    if arguments.out:
        write_record(arguments.out, {"bar": BAR, "lines": [asdict(line) for line in lines]})
    if arguments.plot:
        # Drawing is the one thing that needs the extra.
        from benchmarks.dispatch_plot import plot

        plot([asdict(line) for line in lines], hardware(), arguments.plot)


if __name__ == "__main__":
    main()
