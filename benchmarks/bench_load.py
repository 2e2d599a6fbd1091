"""`python -m benchmarks.bench_load`: checkpoint to ready over reading the same bytes in one go.

Both sides run in one process, one after the other, with the page cache in the same state: warm, or
with --cold emptied of the checkpoint before each side. The clock starts when the process has its
modules in memory and stops when the service serves.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.record import bar_line, machine, read_record, write_record
from benchmarks.serving.arguments import NANO, add_outputs, check_outputs
from benchmarks.serving.services import end_on_sigterm, message, service

BAR = 2.0
_SIDES = ("worker", "router")
_LOAD_S = 600.0

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def main() -> int:
    """0: measured; a bar that is missed is printed, not a failure."""
    arguments = _parser().parse_args()
    check_outputs(arguments)
    rounds = 1 if arguments.quick else arguments.rounds
    runs = asyncio.run(_measure(arguments.model.absolute(), rounds, arguments.cold))
    ratios = {}
    for side, found in runs.items():
        middle = sorted(found, key=lambda run: run["ready_s"])[len(found) // 2]
        ratios[side] = median(run["ready_s"] / run["read_s"] for run in found)
        print(
            f"{side}: process started in {middle['process_s']:.2f} s, ready after "
            f"{middle['ready_s']:.3f} s more, {middle['bytes'] / 1e6:.1f} MB "
            f"read in one go in {middle['read_s']:.4f} s"
        )
        for phase, seconds in sorted(middle["phases"].items(), key=lambda item: -item[1]):
            print(f"  {seconds:7.3f} s  {phase}")
    state = "cold" if arguments.cold else "warm"
    for side, ratio in ratios.items():
        print(bar_line(f"{side}, {state}: ready / read", ratio, BAR, most=True))
    if arguments.json:
        body = {"bar": BAR, "model": arguments.model.name, "page_cache": state}
        write_record(arguments.json, {**body, "ratios": ratios, "runs": runs})
        if arguments.plot:
            plot(arguments.json, arguments.plot)
    return 0


async def _measure(model: Path, rounds: int, cold: bool) -> Runs:
    end_on_sigterm()
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in _SIDES}
    for number in range(rounds):
        for side in _SIDES if number % 2 == 0 else reversed(_SIDES):
            arguments = ["-m", "benchmarks.loading.once", side, "--model", str(model)]
            async with service([*arguments, *(["--cold"] if cold else [])]) as process:
                runs[side].append(await message(process, _LOAD_S))
    return runs


def plot(report: Path, picture: Path) -> None:
    """A bar a side, its phases stacked, beside the time of reading alone."""
    from matplotlib.figure import Figure

    read = read_record(report)
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    middles = {
        side: sorted(runs, key=lambda run: run["ready_s"])[len(runs) // 2]
        for side, runs in read["runs"].items()
    }
    left = dict.fromkeys(middles, 0.0)
    names = dict.fromkeys(phase for run in middles.values() for phase in run["phases"])
    for phase in names:
        widths = [run["phases"].get(phase, 0.0) for run in middles.values()]
        axes.barh(list(left), widths, left=list(left.values()), label=phase)
        left = {side: left[side] + width for side, width in zip(left, widths, strict=True)}
    axes.barh(
        [f"{side}: read alone" for side in middles],
        [run["read_s"] for run in middles.values()],
        color="black",
    )
    axes.set_xlabel(f"seconds from started process to ready, {read['page_cache']} page cache")
    axes.legend(fontsize=8)
    figure.suptitle(f"{read['model']}; {machine(read)}", fontsize=10)
    figure.savefig(picture, dpi=110)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_load",
        description="Time from checkpoint to ready over that of reading its bytes.",
        epilog="example: python -m benchmarks.bench_load --model DIR --cold",
    )
    add_outputs(made)
    add = made.add_argument
    add("--model", type=Path, default=NANO, help="checkpoint directory; default: nano-K2")
    add("--quick", action="store_true", help="one round")
    add("--rounds", type=int, default=5)
    add("--cold", action="store_true", help="drop the checkpoint from the page cache before each")
    return made


if __name__ == "__main__":
    sys.exit(main())
