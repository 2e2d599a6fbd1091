"""Grids measured on a fleet, and the planner's constants that follow from some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.placement.fit import Sample, fit
from benchmarks.placement.fleet import ROUTER, Fleet
from benchmarks.placement.steady import Steady
from benchmarks.serving.cluster import ClusterShape
from cluster.blueprint import costs_of, shape_of
from cluster.config import ClusterConfig
from cluster.planner import CostModel, ModelShape, WorkerSpec, plan
from cluster.planner.grid import parse_grid
from cluster.planner.layout import Infeasible, Layout, lay_out
from cluster.planner.plan import Plan
from kimi_k2.config import ModelConfig

# The corners of the space of grids; what lies between is left to be predicted.
_FITTED_GRIDS = ("layer-major", "expert-major")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the planner is to know, with its constants or without them."""

    shape: ModelShape
    workers: tuple[WorkerSpec, ...]
    costs: CostModel

    @classmethod
    def of(cls, shape: ClusterShape, config: ClusterConfig) -> Machine:
        """With the constants of a config."""
        workers = tuple(
            WorkerSpec(
                worker_id=f"expert-{number}",
                node="",
                expert_bandwidth=config.planner.expert_gbps * 1e9,
            )
            for number in range(shape.workers)
        )
        return cls(
            shape=shape_of(ModelConfig.from_dir(shape.model), config),
            workers=workers,
            costs=costs_of(config, 1),
        )

    def layout(self, grid: str) -> Layout:
        """Raises ValueError when the workers cannot be laid out so."""
        made = lay_out(self.shape, self.workers, parse_grid(grid, len(self.workers)))
        if isinstance(made, Infeasible):
            raise ValueError(f"grid {grid}: {made.reason}")
        return made

    def plan(self, grid: str, rows: int, micro_batches: int) -> Plan:
        costs = replace(self.costs, rows=rows, micro_batches=micro_batches)
        return plan(self.shape, self.workers, costs, placement=grid)

    def fitted(self, samples: Sequence[Sample]) -> Machine:
        costs, bandwidth = fit(self.shape, samples, self.costs)
        fastest = float("inf") if bandwidth is None else bandwidth
        workers = (replace(worker, expert_bandwidth=fastest) for worker in self.workers)
        return replace(self, costs=costs, workers=tuple(workers))


async def best_of(
    fleet: Fleet, machine: Machine, cases: Sequence[tuple[str, int, int]], tokens: int, rounds: int
) -> dict[tuple[str, int, int], Steady]:
    """Each (grid, rows, micro-batches) measured once a round, in turn; the fastest counts.

    What else the machine does only ever makes a step longer.
    """
    found: dict[tuple[str, int, int], Steady] = {}
    for number in range(rounds):
        for case in cases if number % 2 == 0 else list(reversed(cases)):
            grid, rows, micro_batches = case
            owners = machine.plan(grid, rows, micro_batches).owners
            made = await fleet.run(micro_batches, owners, rows, tokens, prompt_tokens=32)
            if case not in found or made.step_s < found[case].step_s:
                found[case] = made
    return found


async def calibrated(
    fleet: Fleet, machine: Machine, rows: Sequence[int], tokens: int, rounds: int
) -> Machine:
    """The machine with constants measured on it; takes a router of one micro-batch."""
    cases = [(grid, count, 1) for count in rows for grid in _FITTED_GRIDS]
    found = await best_of(fleet, machine, cases, tokens, rounds)
    return machine.fitted(
        [
            Sample(
                layout=machine.layout(grid),
                rows=count,
                step_s=made.step_s,
                router_s=made.processor_s[ROUTER],
                workers_s=sum(made.processor_s.values()) - made.processor_s[ROUTER],
            )
            for (grid, count, _), made in found.items()
        ]
    )
