"""`python -m benchmarks.bench_replay`: real arrivals and lengths, at several loads.

Load 1 is the trace as it happened, with lengths divided by 8. What a load asks for is the same for
every side; a side that falls behind shows it in the time to the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.record import machine, read_record, write_record
from benchmarks.serving.arguments import (
    NANO,
    QUICK_SIDES,
    add_outputs,
    add_sides,
    check_outputs,
    chosen_sides,
)
from benchmarks.serving.compare import quietest
from benchmarks.serving.load import Ask, batch
from benchmarks.serving.measures import PERCENTILES, Measures
from benchmarks.serving.quiet import Quiet
from benchmarks.serving.replay import Scale, replay
from benchmarks.serving.services import end_on_sigterm
from benchmarks.serving.sides import open_sides
from kimi_k2.config import ModelConfig

_TRACE = NANO.parents[2] / "shared" / "data" / "traces" / "azure_conversation.csv"
_LOADS = "1,2,4"
_WARM = 32

Found = dict[tuple[str, float], list[Measures]]


def main() -> int:
    """0: measured."""
    arguments = _parser().parse_args()
    check_outputs(arguments)
    only = chosen_sides(arguments.only, QUICK_SIDES)
    if not arguments.trace.is_file():
        sys.exit(f"bench_replay: there is no trace {arguments.trace}; name one with --trace")
    seconds = 5.0 if arguments.quick else arguments.seconds
    loads = [1.0] if arguments.quick else [float(load) for load in arguments.loads.split(",")]
    config = ModelConfig.from_dir(arguments.model)
    scale = Scale(skip_s=arguments.skip, seconds=seconds)
    asks = {
        load: replay(arguments.trace, replace(scale, load=load), config.vocab_size)
        for load in loads
    }
    found = asyncio.run(_measure(arguments, only, asks, config.vocab_size))
    print(f"\n{_table(found, asks)}\n\n{_ratios(found)}")
    if arguments.json:
        write_record(
            arguments.json,
            {
                "trace": arguments.trace.name,
                "scale": asdict(scale),
                "runs": [
                    {
                        "side": side,
                        "load": load,
                        "requests": len(asks[load]),
                        "rounds": [asdict(run) for run in runs],
                    }
                    for (side, load), runs in found.items()
                ],
            },
        )
        if arguments.plot:
            plot(arguments.json, arguments.plot)
    return 0


async def _measure(
    arguments: argparse.Namespace,
    only: Sequence[str],
    asks: Mapping[float, Sequence[Ask]],
    vocab_size: int,
) -> Found:
    end_on_sigterm()
    found: Found = {}
    quiet = Quiet(wait_s=arguments.quiet_wait)
    async with open_sides(arguments, only) as sides:
        taking = [side for side in sides if side.takes_arrivals]
        for side in taking:
            await side.run(
                batch(_WARM, prompt_tokens=64, max_tokens=8, vocab_size=vocab_size, seed="warm")
            )
        for number in range(arguments.rounds):
            for load, wanted in asks.items():
                for side in taking if number % 2 == 0 else reversed(taking):
                    _, run = await quietest(side, wanted, quiet)
                    found.setdefault((side.name, load), []).append(run)
                    print(
                        f"{side.name}, load {load:g}: {len(wanted)} requests, "
                        f"{run.tokens_per_s:.0f} tokens/s, TTFT p50 {run.ttft_ms[50]:.0f} ms, "
                        f"ITL p50 {run.itl_ms[50]:.1f} ms (others {run.others:.0%})",
                        flush=True,
                    )
    return found


def _table(found: Found, asks: Mapping[float, Sequence[Ask]]) -> str:
    lines = [
        "| side | load | requests/s | tokens/s | TTFT p50, p90, p99 ms | ITL p50, p90, p99 ms |",
        "|---|---:|---:|---:|---|---|",
    ]
    for (side, load), runs in found.items():
        span = asks[load][-1].at_s or 1.0
        ttft = ", ".join(f"{median(run.ttft_ms[p] for run in runs):.0f}" for p in PERCENTILES)
        itl = ", ".join(f"{median(run.itl_ms[p] for run in runs):.1f}" for p in PERCENTILES)
        speed = median(run.tokens_per_s for run in runs)
        lines.append(
            f"| {side} | {load:g} | {len(asks[load]) / span:.1f} | {speed:.0f} | {ttft} | {itl} |"
        )
    return "\n".join(lines)


def _ratios(found: Found) -> str:
    """The other sides over the first, so that above 1 the first is the faster."""
    sides = list(dict.fromkeys(side for side, _ in found))
    lines = []
    for other in sides[1:]:
        for load in dict.fromkeys(load for _, load in found):
            pairs = list(zip(found[sides[0], load], found[other, load], strict=True))
            ttft = median(b.ttft_ms[50] / a.ttft_ms[50] for a, b in pairs)
            itl = median(b.itl_ms[50] / a.itl_ms[50] for a, b in pairs)
            lines.append(
                f"{other} / {sides[0]} at load {load:g}: TTFT p50 {ttft:.2f}, ITL p50 {itl:.2f}"
            )
    return "\n".join(lines)


def plot(report: Path, picture: Path) -> None:
    """TTFT and ITL against the load: the median as a line, p50 to p99 as a band."""
    from matplotlib.figure import Figure

    read = read_record(report)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = (("ttft_ms", "time to first token, ms"), ("itl_ms", "time between tokens, ms"))
    for axes, (name, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for side in dict.fromkeys(run["side"] for run in read["runs"]):
            runs = sorted((r for r in read["runs"] if r["side"] == side), key=lambda r: r["load"])
            loads = [run["load"] for run in runs]
            axes.plot(loads, _over(runs, name, "50"), marker="o", label=side)
            axes.fill_between(loads, _over(runs, name, "50"), _over(runs, name, "99"), alpha=0.2)
        axes.set_xlabel("load: arrivals so many times as fast as in the trace")
        axes.set_title(f"{title}: p50, band to p99", fontsize=10)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(f"{read['trace']}; {machine(read)}", fontsize=10)
    figure.savefig(picture, dpi=110)


def _over(runs: Sequence[Mapping[str, Any]], name: str, percentile: str) -> list[float]:
    return [median(each[name][percentile] for each in run["rounds"]) for run in runs]


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_replay",
        description="TTFT and ITL under real arrivals, scaled, at several loads.",
        epilog="example: python -m benchmarks.bench_replay --loads 1,2 --only cluster,vllm",
    )
    add_sides(made)
    add_outputs(made)
    add = made.add_argument
    add("--quick", action="store_true", help="load 1, for 5 seconds")
    add("--trace", type=Path, default=_TRACE)
    add("--loads", default=_LOADS, help=f"by commas; default {_LOADS}")
    add("--skip", type=float, default=120.0, help="seconds of the trace to leave out")
    add("--seconds", type=float, default=12.0, help="how long requests arrive at each load")
    add("--rounds", type=int, default=1)
    add("--quiet-wait", type=float, default=0.0, help="most seconds to wait for a quiet machine")
    return made


if __name__ == "__main__":
    sys.exit(main())
