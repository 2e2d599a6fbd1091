"""`python -m benchmarks.bench_soak`: random requests and aborts for a long time.

Afterwards no process has grown, no KV block is left in use, the engine finds no fault in itself
(`check_integrity`), and the speed is what it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import urllib.request
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

from benchmarks.record import machine, read_record, write_record
from benchmarks.serving.arguments import add_cluster, add_outputs, check_outputs, shape_of
from benchmarks.serving.cluster import Running, cluster
from benchmarks.serving.quiet import Moment
from benchmarks.serving.services import end_on_sigterm
from benchmarks.soak.clients import Client, Habits, Tally
from benchmarks.soak.verdict import Sample, Verdict, judge, speed
from kimi_k2.config import ModelConfig
from wire.clients.router import RouterClient

_SAMPLES_MIN = 24
_IDLE_S = 60.0


def main() -> int:
    """0: nothing grew, leaked or slowed down; 1: something did."""
    arguments = _parser().parse_args()
    check_outputs(arguments)
    seconds = 40.0 if arguments.quick else 60.0 * arguments.minutes
    samples, tally, left = asyncio.run(_soak(arguments, seconds))
    verdict = judge(samples, left)
    print(_summary(samples, tally, verdict))
    if arguments.json:
        write_record(
            arguments.json,
            {
                "seconds": seconds,
                "concurrent": arguments.concurrent,
                "habits": asdict(Habits()),
                "tally": asdict(tally),
                "verdict": asdict(verdict),
                "complaints": verdict.complaints,
                "samples": [asdict(sample) for sample in samples],
            },
        )
        if arguments.plot:
            plot(arguments.json, arguments.plot)
    return 1 if verdict.complaints else 0


async def _soak(
    arguments: argparse.Namespace, seconds: float
) -> tuple[list[Sample], Tally, list[str]]:
    end_on_sigterm()
    vocab_size = ModelConfig.from_dir(arguments.model).vocab_size
    tally = Tally()
    async with cluster(shape_of(arguments)) as running, RouterClient(running.router.address) as to:
        stream = to.generate()
        clients = [
            Client(f"client-{number}", stream, vocab_size, Habits(), tally)
            for number in range(arguments.concurrent)
        ]
        tasks = [asyncio.create_task(client.run()) for client in clients]
        try:
            samples = await _watch(running, tasks, tally, seconds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        left = await _left(running)
        await stream.close()
    return samples, tally, left


async def _watch(
    running: Running, clients: list[asyncio.Task[None]], tally: Tally, seconds: float
) -> list[Sample]:
    """Samples while the clients run; raises what one of them raised."""
    processes = {"router": psutil.Process(running.router.pid)}
    processes |= {name: psutil.Process(ready.pid) for name, ready in running.workers.items()}
    every = min(15.0, seconds / _SAMPLES_MIN)
    samples: list[Sample] = []
    began = perf_counter()
    while perf_counter() - began < seconds:
        before = Moment.now()
        ended, _ = await asyncio.wait(clients, timeout=every, return_when=asyncio.FIRST_COMPLETED)
        for client in ended:
            client.result()
        page = await asyncio.to_thread(_page, running, "engine")
        samples.append(
            Sample(
                at_s=perf_counter() - began,
                tokens=tally.tokens,
                rss_mb={name: p.memory_info().rss / 1e6 for name, p in processes.items()},
                blocks=page["kv_blocks"]["used"],
                others=before.others_since(),
            )
        )
        if len(samples) > 1:
            made = samples[-1]
            print(
                f"{made.at_s:6.0f} s: {speed(samples[-2], made):5.0f} tokens/s, "
                f"{made.blocks} blocks, {sum(made.rss_mb.values()):.0f} MB "
                f"(others {made.others:.0%})",
                flush=True,
            )
    return samples


async def _left(running: Running) -> list[str]:
    """What is wrong once nobody asks any more."""
    end = perf_counter() + _IDLE_S
    while True:
        page = await asyncio.to_thread(_page, running, "integrity")
        if not page["sequences"] or perf_counter() > end:
            break
        await asyncio.sleep(0.2)
    used = (await asyncio.to_thread(_page, running, "engine"))["kv_blocks"]["used"]
    left = list(page["violations"])
    left += [f"{page['sequences']} sequences are left"] if page["sequences"] else []
    return left + ([f"{used} KV blocks are in use by nobody"] if used else [])


def _page(running: Running, name: str) -> dict[str, Any]:
    address = f"http://{running.router.metrics_address}/debug/{name}"
    with urllib.request.urlopen(address, timeout=20.0) as answer:
        page: dict[str, Any] = json.load(answer)
    return page


def _summary(samples: list[Sample], tally: Tally, verdict: Verdict) -> str:
    whole = speed(samples[0], samples[-1])
    grown = ", ".join(f"{name} {mb:+.1f} MB" for name, mb in verdict.growth_mb.items())
    return "\n".join(
        [
            f"\n{tally.finished} requests finished, {tally.aborted} aborted, "
            f"{tally.tokens} tokens, {whole:.0f} tokens/s",
            f"growth: {grown}; speed lost: {verdict.drift:.1%}",
            *(f"FAILED: {complaint}" for complaint in verdict.complaints),
            *([] if verdict.complaints else ["no growth, no leak, no drift"]),
        ]
    )


def plot(report: Path, picture: Path) -> None:
    """Speed, memory and KV blocks over time."""
    from matplotlib.figure import Figure

    read = read_record(report)
    samples = [Sample(**sample) for sample in read["samples"]]
    minutes = [sample.at_s / 60 for sample in samples]
    figure = Figure(figsize=(13, 4), layout="constrained")
    fast, memory, blocks = figure.subplots(1, 3)
    pairs = list(pairwise(samples))
    fast.plot(minutes[1:], [speed(*pair) for pair in pairs])
    fast.set_title("tokens/s")
    for name in samples[0].rss_mb:
        memory.plot(minutes, [sample.rss_mb[name] for sample in samples], label=name)
    memory.set_title("resident memory, MB")
    memory.legend(fontsize=8)
    blocks.plot(minutes, [sample.blocks for sample in samples])
    blocks.set_title("KV blocks in use")
    for axes in (fast, memory, blocks):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("minutes")
        axes.grid(alpha=0.3)
    figure.suptitle(f"{read['concurrent']} clients; {machine(read)}", fontsize=10)
    figure.savefig(picture, dpi=110)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_soak",
        description="Random requests and aborts for a long time; nothing may grow, leak or slow.",
        epilog="example: python -m benchmarks.bench_soak --minutes 2",
    )
    add_cluster(made)
    add_outputs(made)
    add = made.add_argument
    add("--quick", action="store_true", help="40 seconds: too short to judge memory by")
    add("--minutes", type=float, default=30.0)
    add("--concurrent", type=int, default=32)
    return made


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
