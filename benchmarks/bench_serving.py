"""`python -m benchmarks.bench_serving`: the cluster against engines in one process."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from benchmarks.serving.arguments import (
    QUICK_SIDES,
    SIDES,
    check_outputs,
    chosen_sides,
    parser,
    shape_of,
)
from benchmarks.serving.compare import Rounds, Work, compare
from benchmarks.serving.quiet import Quiet
from benchmarks.serving.report import bar_lines, bars, ratio_lines, table, write_json
from benchmarks.serving.services import end_on_sigterm
from benchmarks.serving.sides import open_sides
from kimi_k2.config import ModelConfig

_SETTINGS = (
    *("placement", "workers", "micro_batches"),
    *("router_threads", "worker_threads", "local_threads"),
)
Peers = dict[str, dict[str, str]]


def main() -> int:
    """0: measured; bars that are missed are printed, not a failure."""
    arguments = parser().parse_args()
    quick = arguments.quick
    check_outputs(arguments)
    only = chosen_sides(arguments.only, QUICK_SIDES if quick else SIDES)
    vocab_size = ModelConfig.from_dir(arguments.model).vocab_size
    work = Work(
        concurrent=tuple(
            map(int, (arguments.concurrent or ("1,32" if quick else "1,8,32")).split(","))
        ),
        prompt_tokens=arguments.prompt_tokens,
        max_tokens=arguments.max_tokens or (24 if quick else 128),
        rounds=arguments.rounds or (1 if quick else 5),
        vocab_size=vocab_size,
    )
    before = os.getloadavg()[0]
    rounds, peers = asyncio.run(_measure(arguments, only, work))
    print(f"\n{table(rounds)}\n\n{ratio_lines(rounds)}\n\n{bar_lines(bars(rounds))}")
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in _SETTINGS}
        settings["grid"] = str(shape_of(arguments).blueprint().plan.grid)
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
    end_on_sigterm()
    async with open_sides(arguments, only) as sides:
        rounds = await compare(sides, work, quiet)
    return rounds, {side.name: dict(side.versions) for side in sides if side.versions}


if __name__ == "__main__":
    sys.exit(main())
