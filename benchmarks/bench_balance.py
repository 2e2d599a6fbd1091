"""`python -m benchmarks.bench_balance`: a live cluster's balancedness before and after a rebalance.

`orrery serve` with nano-K2, experts spread over all workers in equal runs as a fleet begins that
knows no load, and people who chat. The controller rebalances by what it has counted; the figures
are of what workers then really compute, by their own counters.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from benchmarks.balance.counted import Evenness, counts, evenness
from benchmarks.balance.talk import talk
from benchmarks.changes.served import Served, served
from benchmarks.record import bar_line, write_record
from benchmarks.serving.arguments import NANO
from benchmarks.serving.services import ServiceError, end_on_sigterm

BAR = 0.95
_WARM_S = 3.0
_POLL_S = 0.2
_CHANGE_S = 120.0


def main() -> int:
    """0: measured; a bar that is missed is printed, not a failure."""
    arguments = _parser().parse_args()
    before, after, plan = asyncio.run(_measure(arguments))
    print(f"the controller: {plan['text']}")
    for name, seen in (("before", before), ("after", after)):
        layers = " ".join(f"{value:.3f}" for value in seen.layers.values())
        print(f"{name}: fleet {seen.fleet:.3f}, layers {layers}, {seen.pairs:.0f} pairs computed")
    print(bar_line("balancedness of the fleet after one rebalance", after.fleet, BAR, most=False))
    print(bar_line("of the worst layer", after.worst, BAR, most=False))
    if arguments.json:
        body = {"before": asdict(before), "after": asdict(after), "bar": BAR, "plan": plan}
        write_record(arguments.json, body)
    return 0


async def _measure(arguments: argparse.Namespace) -> tuple[Evenness, Evenness, dict[str, Any]]:
    end_on_sigterm()
    look = arguments.seconds
    config = {
        "model": {"path": str(NANO)},
        "experts": {
            "workers": arguments.workers,
            "spares": 0,
            "placement": "expert-major",
            "redundant_experts": arguments.redundant,
        },
        "rebalance": {"interval_s": look + 2 * _WARM_S, "window_s": 10 * look},
    }
    async with served(config) as server, httpx.AsyncClient(trust_env=False, timeout=60) as http:
        run = json.loads((server.home / "run.json").read_text())
        talking = [
            asyncio.create_task(talk(http, run["url"], run["model"], f"chat-{n}", arguments.tokens))
            for n in range(arguments.streams)
        ]
        work = asyncio.create_task(_before_and_after(server, look))
        try:
            done, _ = await asyncio.wait([work, *talking], return_when="FIRST_COMPLETED")
            for task in done:
                task.result()
            return work.result()
        finally:
            for task in (work, *talking):
                task.cancel()
            await asyncio.gather(work, *talking, return_exceptions=True)


async def _before_and_after(
    server: Served, look: float
) -> tuple[Evenness, Evenness, dict[str, Any]]:
    await asyncio.sleep(_WARM_S)
    before = await _look(server, "change_begun", look)
    plan = await _event(server, "change_begun")
    await _event(server, "change_done")
    await asyncio.sleep(_WARM_S)
    return before, await _look(server, "", look), plan


async def _look(server: Served, until: str, seconds: float) -> Evenness:
    """What workers compute within the seconds, or until an event of that kind."""
    first = await counts(server.http, await server.status())
    last, loop = first, asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(_POLL_S)
        if until and await _find(server, until):
            break
        last = await counts(server.http, await server.status())
    return evenness(first, last)


async def _event(server: Served, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(_CHANGE_S):
        while True:
            if (event := await _find(server, kind)) is not None:
                break
            await asyncio.sleep(_POLL_S)
    if event["facts"]["reason"] != "balance":
        raise ServiceError(f"something else was moved: {event['text']}")
    return event


async def _find(server: Served, kind: str) -> dict[str, Any] | None:
    return next((event for event in await server.events() if event["kind"] == kind), None)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_balance",
        description="How even the workers' load is before and after one live rebalance.",
        epilog="example: python -m benchmarks.bench_balance --workers 8 --redundant 32",
    )
    made.add_argument("--json", type=Path, help="file to write")
    made.add_argument("--streams", type=int, default=16)
    made.add_argument("--tokens", type=int, default=96, help="most of an answer")
    made.add_argument("--workers", type=int, default=4)
    made.add_argument("--redundant", type=int, default=32, help="experts of each layer")
    made.add_argument("--seconds", type=float, default=25.0, help="of each look")
    return made


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
