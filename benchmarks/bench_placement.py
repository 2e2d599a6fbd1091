"""`python -m benchmarks.bench_placement`: the planner's predicted step against the measured one.

First the planner's constants are measured on the two extreme grids with one micro-batch in flight
(`benchmarks.calibrate`), then every grid and number of micro-batches is predicted and measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.calibrate import section
from benchmarks.placement.fleet import open_fleet
from benchmarks.placement.measured import Machine, best_of, calibrated
from benchmarks.record import bar_line, machine, read_record, write_record
from benchmarks.serving.arguments import add_cluster, add_outputs, check_outputs, shape_of
from benchmarks.serving.services import end_on_sigterm
from cluster.config import ClusterConfig
from cluster.config_reader import load_config
from cluster.planner.grid import grids

BAR = 1.1


@dataclass(frozen=True, kw_only=True)
class Case:
    """Steps in milliseconds; processor_ms: of router and workers together, a step."""

    grid: str
    rows: int
    micro_batches: int
    predicted_ms: float
    measured_ms: float
    processor_ms: float
    bound: str


@dataclass(frozen=True, kw_only=True)
class Pick:
    """What the planner would choose for so many rows, and what it costs against the best.

    micro_batches: 0 where the planner chose them too.
    """

    rows: int
    micro_batches: int
    chosen: str
    best: str
    ratio: float


def main() -> int:
    """0: measured; a bar that is missed is printed, not a failure."""
    arguments = _parser().parse_args()
    check_outputs(arguments)
    machine_, cases = asyncio.run(_measure(arguments))
    found = picks(cases)
    print(f"\n{_table(cases)}\n\n{section(machine_)}")
    off = [case.predicted_ms / case.measured_ms for case in cases]
    print(f"predicted / measured: median {median(off):.2f}, {min(off):.2f} to {max(off):.2f}")
    for pick in found:
        which = f"{pick.micro_batches} in flight" if pick.micro_batches else "all"
        name = f"{pick.rows} rows, {which}: the planner's {pick.chosen} / the best, {pick.best}"
        print(bar_line(name, pick.ratio, BAR, most=True))
    if arguments.json:
        write_record(
            arguments.json,
            {
                "bar": BAR,
                "costs": asdict(machine_.costs),
                "expert_bandwidth": machine_.workers[0].expert_bandwidth,
                "cases": [asdict(case) for case in cases],
                "picks": [asdict(pick) for pick in found],
            },
        )
        if arguments.plot:
            plot(arguments.json, arguments.plot)
    return 0


async def _measure(arguments: argparse.Namespace) -> tuple[Machine, list[Case]]:
    end_on_sigterm()
    shape = shape_of(arguments)
    known = load_config(arguments.config, {}) if arguments.config else ClusterConfig()
    machine_ = Machine.of(shape, known)
    quick = arguments.quick
    limits = [1, 2] if quick else [int(limit) for limit in arguments.in_flight.split(",")]
    wanted = [8] if quick else [int(rows) for rows in arguments.rows.split(",")]
    tokens, rounds = (16, 1) if quick else (arguments.tokens, arguments.rounds)
    sizes = machine_.shape
    names = [str(grid) for grid in grids(shape.workers, len(sizes.layers), sizes.experts)]
    async with open_fleet(shape, sorted({1, *limits})) as fleet:
        if not arguments.config:
            rows = (1, 4, 8) if quick else (1, 8, 32)
            machine_ = await calibrated(fleet, machine_, rows, tokens, rounds)
        cases = [(grid, rows, limit) for rows in wanted for grid in names for limit in limits]
        found = await best_of(fleet, machine_, cases, tokens, rounds)
    made = []
    for (grid, count, limit), steady in found.items():
        prediction = machine_.plan(grid, count, limit).prediction
        made.append(
            Case(
                grid=grid,
                rows=count,
                micro_batches=limit,
                predicted_ms=1e3 * prediction.step_seconds,
                measured_ms=1e3 * steady.step_s,
                processor_ms=1e3 * sum(steady.processor_s.values()),
                bound=prediction.bound,
            )
        )
    return machine_, made


def picks(cases: list[Case]) -> list[Pick]:
    """For each number of rows: each number of micro-batches by itself, then over all of them."""
    found = []
    for rows in dict.fromkeys(case.rows for case in cases):
        here = [case for case in cases if case.rows == rows]
        limits = list(dict.fromkeys(case.micro_batches for case in here))
        for limit in (*limits, 0):
            among = [case for case in here if limit in (0, case.micro_batches)]
            chosen = min(among, key=lambda case: case.predicted_ms)
            best = min(among, key=lambda case: case.measured_ms)
            found.append(
                Pick(
                    rows=rows,
                    micro_batches=limit,
                    chosen=f"{chosen.grid} with {chosen.micro_batches}",
                    best=f"{best.grid} with {best.micro_batches}",
                    ratio=chosen.measured_ms / best.measured_ms,
                )
            )
    return found


def _table(cases: list[Case]) -> str:
    lines = [
        "| rows | grid | in flight | predicted ms | measured ms | ratio | processor ms | bound |",
        "|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {case.rows} | {case.grid} | {case.micro_batches} | {case.predicted_ms:.1f} "
        f"| {case.measured_ms:.1f} | {case.predicted_ms / case.measured_ms:.2f} "
        f"| {case.processor_ms:.1f} | {case.bound} |"
        for case in cases
    ]
    return "\n".join(lines)


def plot(report: Path, picture: Path) -> None:
    """A panel a number of rows: measured bars, predicted marks, a group a grid."""
    from matplotlib.figure import Figure

    read = read_record(report)
    by_rows: dict[int, list[Mapping[str, Any]]] = {}
    for case in read["cases"]:
        by_rows.setdefault(case["rows"], []).append(case)
    figure = Figure(figsize=(1 + 6 * len(by_rows), 4.4), layout="constrained")
    panels = figure.subplots(1, len(by_rows), squeeze=False)[0]
    for axes, (rows, cases) in zip(panels, by_rows.items(), strict=True):
        names = list(dict.fromkeys(case["grid"] for case in cases))
        limits = list(dict.fromkeys(case["micro_batches"] for case in cases))
        width = 0.8 / len(limits)
        for place, limit in enumerate(limits):
            mine = [case for case in cases if case["micro_batches"] == limit]
            left = [names.index(case["grid"]) - 0.4 + (place + 0.5) * width for case in mine]
            axes.bar(
                left, [case["measured_ms"] for case in mine], width, label=f"{limit} in flight"
            )
            axes.plot(left, [case["predicted_ms"] for case in mine], "k_", markersize=14)
        axes.set_xticks(range(len(names)), names)
        axes.set_title(f"{rows} streams: ms a step; dashes: predicted", fontsize=10)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(machine(read), fontsize=10)
    figure.savefig(picture, dpi=110)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_placement",
        description="Predicted against measured step times over grids and micro-batches.",
        epilog="example: python -m benchmarks.bench_placement --rows 32 --in-flight 1,2",
    )
    add_cluster(made)
    add_outputs(made)
    add = made.add_argument
    add("--quick", action="store_true", help="8 rows, 1 and 2 in flight, 16 tokens, one round")
    add("--rows", default="8,32,64", help="streams, by commas")
    add("--in-flight", default="1,2,4,8", help="micro-batches, by commas")
    add("--tokens", type=int, default=40, help="of each stream, of each run")
    add("--rounds", type=int, default=3, help="runs of each case; the fastest counts")
    add("--config", type=Path, help="take its planner constants instead of measuring them")
    return made


if __name__ == "__main__":
    sys.exit(main())
