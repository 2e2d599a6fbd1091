"""`python -m benchmarks.bench_planner`: processor time of a rebalance at K2's size.

60 layers of 384 experts on 128 workers, 8 a node, from the placement that a fleet starts with when
no load is known, for a load by Zipf's law. The planner needs nothing but numpy.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.record import bar_line, write_record
from cluster.planner import TWICE, Rebalance, Redundancy, WorkerSpec, WorkerState, rebalance
from cluster.planner.crew import Loads, Owners, crew_of, owners_of
from cluster.planner.layout import Infeasible
from cluster.planner.replicate import replicate

BAR_S = 1.0
_PER_NODE = 8
_EXPERT_BYTES = 24_800_000


def main() -> int:
    """0: measured; a bar that is missed is printed, not a failure."""
    arguments = _parser().parse_args()
    layers, experts = arguments.layers, arguments.experts
    workers = [
        WorkerState(
            spec=WorkerSpec(
                worker_id=f"expert-{number}",
                node=f"node-{number // _PER_NODE}",
                expert_bandwidth=1e12,
                memory_bytes=None,
            )
        )
        for number in range(arguments.workers)
    ]
    load = zipf(layers, experts)
    found = []
    for redundant in (0, 32, 128, TWICE):
        owners = start(layers, experts, workers, redundant)
        seconds, made = [], None
        for _ in range(arguments.rounds):
            begun = time.process_time()
            made = _plan(owners, load, workers, redundant)
            seconds.append(time.process_time() - begun)
        assert made is not None
        print(bar_line(f"{redundant} redundant: s", min(seconds), BAR_S, most=True), end="; ")
        print(
            f"{made.transition.copies_loaded} copies to load, balancedness of the fleet "
            f"{made.fleet_before:.3f} -> {made.fleet_after:.3f}"
        )
        found.append(
            {
                "redundant": redundant,
                "seconds": seconds,
                "copies": made.transition.copies_loaded,
                "before": made.fleet_before,
                "after": made.fleet_after,
            }
        )
    if arguments.json:
        write_record(arguments.json, {"bar_s": BAR_S, "plans": found})
    return 0


def zipf(layers: int, experts: int) -> Loads:
    """Tokens by Zipf's law, another order of the experts in each layer."""
    chance = np.random.default_rng(7)
    shares = 1e6 / np.arange(1, experts + 1)
    return np.stack([chance.permutation(shares) for _ in range(layers)])


def start(layers: int, experts: int, workers: list[WorkerState], redundant: Redundancy) -> Owners:
    """Experts in equal, contiguous parts, with copies at even distances."""
    crew = crew_of(workers, _EXPERT_BYTES)
    held = np.zeros((layers, experts, len(workers)), np.bool_)
    held[:, np.arange(experts), np.arange(experts) * len(workers) // experts] = True
    full = replicate(held, None, redundant, crew)
    assert not isinstance(full, Infeasible), full
    return owners_of(full, range(1, layers + 1), crew)


def _plan(
    owners: Owners, load: Loads, workers: list[WorkerState], redundant: Redundancy
) -> Rebalance:
    return rebalance(owners, load, workers, redundant=redundant, expert_bytes=_EXPERT_BYTES)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_planner",
        description="Processor time that the planner takes for one rebalance.",
        epilog="example: python -m benchmarks.bench_planner --workers 16",
    )
    made.add_argument("--json", type=Path, help="file to write")
    made.add_argument("--layers", type=int, default=60)
    made.add_argument("--experts", type=int, default=384)
    made.add_argument("--workers", type=int, default=128)
    made.add_argument("--rounds", type=int, default=3, help="of which the best counts")
    return made


if __name__ == "__main__":
    sys.exit(main())
