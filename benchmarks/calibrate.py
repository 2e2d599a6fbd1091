"""`python -m benchmarks.calibrate`: the `planner:` section of a config, measured on this machine.

    python -m benchmarks.calibrate > fleet.yaml && orrery serve --config fleet.yaml

Starts a router and expert workers of the model, decodes with 1, 8 and 32 streams over the two
extreme grids, and fits the planner's constants to the processor times. Half a minute; for a fleet
of several machines run it on one of each kind. Link and rows are not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks.placement.fleet import open_fleet
from benchmarks.placement.measured import Machine, calibrated
from benchmarks.serving.arguments import add_cluster, shape_of
from benchmarks.serving.services import end_on_sigterm
from cluster.config import ClusterConfig

_ROWS = (1, 8, 32)


def main() -> int:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.calibrate",
        description="Measures the planner's constants; prints them as a section of the config.",
    )
    add_cluster(made)
    made.add_argument("--tokens", type=int, default=48, help="of each stream, of each run")
    made.add_argument("--rounds", type=int, default=3, help="runs of each case; the fastest counts")
    machine = asyncio.run(_measure(made.parse_args()))
    sys.stdout.write(section(machine))
    return 0


async def _measure(arguments: argparse.Namespace) -> Machine:
    end_on_sigterm()
    shape = shape_of(arguments)
    machine = Machine.of(shape, ClusterConfig())
    async with open_fleet(shape, [1]) as fleet:
        return await calibrated(fleet, machine, _ROWS, arguments.tokens, arguments.rounds)


def section(machine: Machine) -> str:
    """YAML; a bandwidth that is too high to be seen is written as 1000 GB/s."""
    costs = machine.costs
    values = {
        "router_us": costs.router_layer_seconds * 1e6,
        "router_row_us": costs.router_row_seconds * 1e6,
        "message_us": costs.message_seconds * 1e6,
        "moved_us": costs.moved_seconds * 1e6,
        "worker_message_us": costs.worker_message_seconds * 1e6,
        "worker_moved_us": costs.worker_moved_seconds * 1e6,
        "latency_us": costs.latency_seconds * 1e6,
        "expert_gbps": min(1000.0, machine.workers[0].expert_bandwidth / 1e9),
    }
    return "planner:\n" + "".join(f"  {key}: {value:.1f}\n" for key, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
