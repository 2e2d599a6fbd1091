"""`python -m benchmarks.bench_changes`: token gaps of 16 streams while the fleet changes.

`orrery serve` as a person starts it; its router is asked directly. Each change is timed from the
ask to the moment when every process, spares included, is ready again, and compared with the quiet
seconds before it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.changes.served import Served, served
from benchmarks.changes.streams import Gaps, ask_on
from benchmarks.record import bar_line, write_record
from benchmarks.serving.arguments import NANO
from benchmarks.serving.quiet import Moment
from benchmarks.serving.services import end_on_sigterm
from kimi_k2.config import ModelConfig
from wire.clients.router import RouterClient

_BAR = 1.25
_CHANGES = "scale-up,scale-down,restart,scale-up,drain"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What the streams felt in a stretch of time; gaps in ms.

    name: quiet, or the change. others: share of the processors that other programs took.
    """

    name: str
    round: int
    seconds: float
    tokens_per_s: float
    p50: float
    p99: float
    most: float
    others: float


def main() -> int:
    arguments = _parser().parse_args()
    found = asyncio.run(_measure(arguments))
    ratios = _ratios(found)
    for name, (p99, ratio) in ratios.items():
        print(f"{name}: p99 {p99:.1f} ms; {bar_line('to quiet', ratio, _BAR, most=True)}")
    if arguments.json:
        write_record(
            arguments.json,
            {
                "streams": arguments.streams,
                "stretches": [asdict(stretch) for stretch in found],
                "p99_to_quiet": {name: ratio for name, (_, ratio) in ratios.items()},
            },
        )
    return 0


async def _measure(arguments: argparse.Namespace) -> list[Stretch]:
    end_on_sigterm()
    config = {
        "model": {"path": str(NANO)},
        "experts": {"workers": arguments.workers, "spares": arguments.spares},
    }
    found: list[Stretch] = []
    async with served(config) as server:
        status = await server.rest()
        address = next(p["address"] for p in status["processes"] if p["role"] == "router")
        async with RouterClient(address) as client:
            stream, gaps = client.generate(), Gaps()
            vocab_size = ModelConfig.from_dir(NANO).vocab_size
            streams = [
                asyncio.create_task(ask_on(stream, f"stream-{n}", vocab_size, 64, 256, gaps))
                for n in range(arguments.streams)
            ]
            work = asyncio.create_task(_rounds(server, gaps, arguments, found))
            try:
                done, _ = await asyncio.wait([work, *streams], return_when="FIRST_COMPLETED")
                for task in done:
                    task.result()
            finally:
                for task in (work, *streams):
                    task.cancel()
                await asyncio.gather(work, *streams, return_exceptions=True)
            await stream.close()
    return found


async def _rounds(
    server: Served, gaps: Gaps, arguments: argparse.Namespace, found: list[Stretch]
) -> None:
    quiet = arguments.quiet_s
    await asyncio.sleep(quiet)
    workers = arguments.workers
    for number in range(arguments.rounds):
        for name in arguments.only.split(","):
            found.append(await _stretch("quiet", number, gaps, server, lambda: server.watch(quiet)))
            path, body, workers = await _next(server, name, workers)
            known, clock = len(await server.events()), time.time() - perf_counter()
            found.append(
                await _stretch(
                    name, number, gaps, server, lambda p=path, b=body: _change(server, p, b)
                )
            )
            if arguments.story:
                _tell((await server.events())[known:], gaps, clock)


def _tell(events: list[dict[str, Any]], gaps: Gaps, clock: float) -> None:
    """What happened when, and the longest gap that ended before the next thing happened.

    Args:
        clock: seconds since 1970 when `perf_counter` was 0.
    """
    times = [event["time"] for event in events]
    for event, until in zip(events, [*times[1:], time.time()], strict=True):
        start = event["time"]
        most = max(gaps.between(start - clock, until - clock), default=0.0)
        print(
            f"  {start - times[0]:6.2f} s {event['kind']} {event['subject']} {event['text']}"[:110]
            + f" ... {most * 1e3:.0f} ms"
        )


async def _next(server: Served, name: str, workers: int) -> tuple[str, Mapping[str, Any], int]:
    """What to post for a change, and how many workers there are afterwards."""
    if name == "restart":
        return "/restart", {}, workers
    if name == "drain":
        rows = (await server.status())["processes"]
        first = next(p["id"] for p in rows if p["role"] == "expert" and p["experts"])
        return "/drain", {"names": [first]}, workers - 1
    workers += 1 if name == "scale-up" else -1
    return "/scale", {"experts": workers}, workers


async def _change(server: Served, path: str, body: Mapping[str, Any]) -> None:
    await server.ask(path, body)
    await server.rest()


async def _stretch(
    name: str, number: int, gaps: Gaps, server: Served, happen: Callable[[], Awaitable[object]]
) -> Stretch:
    before, start = Moment.now(), perf_counter()
    await happen()
    end = perf_counter()
    seen = [gap * 1e3 for gap in gaps.between(start, end)]
    made = Stretch(
        name=name,
        round=number,
        seconds=end - start,
        tokens_per_s=len(seen) / (end - start),
        p50=seen[len(seen) // 2],
        p99=seen[int(len(seen) * 0.99)],
        most=seen[-1],
        others=before.others_since(),
    )
    print(
        f"{number} {name:>10} {made.seconds:5.1f} s {made.tokens_per_s:6.0f} tokens/s, gaps p50 "
        f"{made.p50:.1f} p99 {made.p99:.1f} most {made.most:.0f} ms (others {made.others:.0%})",
        flush=True,
    )
    return made


def _ratios(found: list[Stretch]) -> dict[str, tuple[float, float]]:
    """Change -> its p99 and that over the p99 of the quiet stretch before it; medians of rounds."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for quiet, change in zip(found[::2], found[1::2], strict=True):
        pairs.setdefault(change.name, []).append((change.p99, change.p99 / quiet.p99))
    return {
        name: (median(p for p, _ in both), median(r for _, r in both))
        for name, both in pairs.items()
    }


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_changes",
        description="Gaps between tokens while workers are added, removed and restarted.",
        epilog="example: python -m benchmarks.bench_changes --rounds 1 --only scale-up,drain",
    )
    add = made.add_argument
    add("--json", type=Path, help="file to write")
    add("--streams", type=int, default=16)
    add("--workers", type=int, default=4)
    add("--spares", type=int, default=1)
    add("--rounds", type=int, default=3)
    add("--quiet-s", type=float, default=8.0)
    add("--story", action="store_true", help="print the events and the longest gaps between them")
    add("--only", default=_CHANGES, help=f"one after the other; default: {_CHANGES}")
    return made


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
