"""`python -m benchmarks.bench_layers`: where a step's time goes, as a stacked plot.

The router and the workers are the real services with their functions wrapped from outside
(`benchmarks.layers.seams`). What is told is the time of a process's event loop while all streams
decode, a step: it adds up to the step, waiting included. Wrapping itself costs a few percent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.layers.instrumented import GATE
from benchmarks.layers.seams import (
    ATTENTION,
    CARRIER,
    COMBINE,
    DISPATCH,
    EXPERTS,
    HEAD,
    REST,
    SAMPLER,
    SCHEDULING,
    SERIALIZATION,
    SHARED,
    WAITING,
)
from benchmarks.placement.steady import steady
from benchmarks.record import machine, read_record, write_record
from benchmarks.serving.arguments import add_cluster, add_outputs, check_outputs, shape_of
from benchmarks.serving.cluster import cluster, local_router
from benchmarks.serving.load import batch
from benchmarks.serving.services import Ready, end_on_sigterm, message
from kimi_k2.config import ModelConfig
from wire.clients.router import RouterClient

_MODULE = "benchmarks.layers.instrumented"
_TOLD_S = 30.0
_GATE_ALONE = "gate (by replay)"
_ORDER = (
    *(ATTENTION, _GATE_ALONE, SHARED, HEAD, EXPERTS, COMBINE, SAMPLER, SCHEDULING, DISPATCH),
    *(SERIALIZATION, CARRIER, REST, WAITING),
)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One process, or the mean of the workers, at so many streams.

    step_ms: the whole step. processor_ms: of the process with all its threads, a step.
    parts_ms: those of the event loop's thread add up to the step; what other threads compute
        meanwhile comes on top.
    """

    side: str
    streams: int
    step_ms: float
    processor_ms: float
    parts_ms: Mapping[str, float]


def main() -> int:
    """0: measured."""
    arguments = _parser().parse_args()
    check_outputs(arguments)
    streams = [4] if arguments.quick else [int(count) for count in arguments.streams.split(",")]
    bars = asyncio.run(_measure(arguments, streams, 16 if arguments.quick else arguments.tokens))
    print(table(bars))
    if arguments.json:
        write_record(arguments.json, {"bars": [asdict(bar) for bar in bars]})
        if arguments.plot:
            plot(arguments.json, arguments.plot)
    return 0


async def _measure(arguments: argparse.Namespace, streams: Sequence[int], tokens: int) -> list[Bar]:
    end_on_sigterm()
    router, worker = (_MODULE, "router"), (_MODULE, "worker")
    shape = replace(shape_of(arguments), router_module=router, worker_module=worker)
    bars: list[Bar] = []
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(
            local_router(shape.model, arguments.local_threads, router)
        )
        running = await stack.enter_async_context(cluster(shape))
        vocab_size = ModelConfig.from_dir(shape.model).vocab_size
        for side, asked, others in (
            ("in-process", local, []),
            ("cluster", running.router, list(running.workers.values())),
        ):
            for count in streams:
                bars += await _bars(side, asked, others, count, tokens, vocab_size)
    return bars


async def _bars(
    side: str,
    router: Ready,
    workers: Sequence[Ready],
    streams: int,
    tokens: int,
    vocab_size: int,
) -> list[Bar]:
    """Of the router, and of the mean worker where there are any."""
    processes = [router, *workers]

    def ask_all() -> None:
        for process in processes:
            os.kill(process.pid, signal.SIGUSR1)

    asks = batch(
        streams, prompt_tokens=64, max_tokens=tokens, vocab_size=vocab_size, seed=f"{streams}"
    )
    async with RouterClient(router.address) as client:
        stream = client.generate()
        try:
            # What is compiled or filled in at first is no part of a step.
            await steady(stream, asks[:1], {}, "warm")
            found = await steady(stream, asks, {}, "run", ask_all)
        finally:
            await stream.close()
    told = []
    for process in processes:
        began = await message(process.process, _TOLD_S)
        told.append((began, await message(process.process, _TOLD_S)))
    bars = [bar(side, streams, found.step_s, *told[0])]
    if workers:
        each = [bar(f"{side}: a worker", streams, found.step_s, *pair) for pair in told[1:]]
        bars.append(mean(each))
    return bars


def bar(
    side: str, streams: int, step_s: float, began: Mapping[str, Any], ended: Mapping[str, Any]
) -> Bar:
    """What happened between two tellings, made a step of `step_s` seconds."""
    scale = 1e3 * step_s / (ended["at_s"] - began["at_s"])
    parts = {
        name: scale * (seconds - began["seconds"].get(name, 0.0))
        for name, seconds in ended["seconds"].items()
    }
    parts = {name: part for name, part in parts.items() if part > 0.0}
    if ended[GATE] and ATTENTION in parts:
        calls = ended["calls"][ATTENTION] - began["calls"].get(ATTENTION, 0)
        # One layer in front has no gate; nano-K2 has 5, so the gate is a little overestimated.
        alone = min(parts[ATTENTION], scale * ended[GATE] * calls)
        parts[ATTENTION] -= alone
        parts[_GATE_ALONE] = alone
    beside = scale * (ended.get("beside_s", 0.0) - began.get("beside_s", 0.0))
    parts[REST] = max(0.0, 1e3 * step_s - sum(parts.values()) + beside)
    processor_s = ended["processor_s"] - began["processor_s"]
    return Bar(
        side=side,
        streams=streams,
        step_ms=1e3 * step_s,
        processor_ms=scale * processor_s,
        parts_ms=parts,
    )


def mean(bars: Sequence[Bar]) -> Bar:
    """Of several workers in one step."""
    names = dict.fromkeys(name for each in bars for name in each.parts_ms)
    return replace(
        bars[0],
        processor_ms=sum(each.processor_ms for each in bars) / len(bars),
        parts_ms={
            name: sum(each.parts_ms.get(name, 0.0) for each in bars) / len(bars) for name in names
        },
    )


def table(bars: Sequence[Bar]) -> str:
    """Markdown: a column a bar, milliseconds a step."""
    found = {name for each in bars for name in each.parts_ms}
    names = [name for name in _ORDER if name in found]
    heads = [f"{each.side}, {each.streams}" for each in bars]
    lines = [f"| ms a step | {' | '.join(heads)} |", "|---|" + "---:|" * len(bars)]
    for name in names:
        values = (f"{each.parts_ms.get(name, 0.0):.2f}" for each in bars)
        lines.append(f"| {name} | {' | '.join(values)} |")
    lines.append("| the step | " + " | ".join(f"{each.step_ms:.2f}" for each in bars) + " |")
    lines.append("| processor | " + " | ".join(f"{each.processor_ms:.2f}" for each in bars) + " |")
    return "\n".join(lines)


def plot(report: Path, picture: Path) -> None:
    """A panel a number of streams, a stacked bar a process; the step is the height of all."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    read = read_record(report)
    bars = [Bar(**each) for each in read["bars"]]
    counts = list(dict.fromkeys(each.streams for each in bars))
    found = {name for each in bars for name in each.parts_ms}
    names = [name for name in _ORDER if name in found]
    colors = colormaps["tab20"]
    figure = Figure(figsize=(2 + 3.6 * len(counts), 5), layout="constrained")
    panels = figure.subplots(1, len(counts), squeeze=False)[0]
    for axes, count in zip(panels, counts, strict=True):
        mine = [each for each in bars if each.streams == count]
        heights = [0.0] * len(mine)
        labels = [each.side.replace(": ", ":\n") for each in mine]
        for name in names:
            parts = [each.parts_ms.get(name, 0.0) for each in mine]
            color = "0.92" if name == WAITING else colors(_ORDER.index(name))
            axes.bar(labels, parts, bottom=heights, label=name, color=color)
            heights = [low + part for low, part in zip(heights, parts, strict=True)]
        axes.set_title(f"{count} streams", fontsize=10)
        axes.set_ylabel("ms a step")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.suptitle(
        f"time of each event loop; attention and gate are one call, told apart by running the "
        f"gate again alone; {machine(read)}",
        fontsize=9,
    )
    figure.savefig(picture, dpi=110)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_layers",
        description="Where a decode step's time goes, in process and over expert workers.",
        epilog="example: python -m benchmarks.bench_layers --streams 32 --placement layer-major",
    )
    add_cluster(made)
    add_outputs(made)
    add = made.add_argument
    add("--quick", action="store_true", help="4 streams of 16 tokens")
    add("--streams", default="1,8,32", help="by commas")
    add("--tokens", type=int, default=96, help="of each stream")
    add("--local-threads", type=int, default=1, help="of the in-process engine")
    return made


if __name__ == "__main__":
    sys.exit(main())
