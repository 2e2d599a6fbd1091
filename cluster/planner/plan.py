"""The planner: the best grid for a model, a fleet and a cost model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import PlanError
from cluster.planner.balance import balancedness
from cluster.planner.crew import Crew, Loads, Owners, crew_of, held_of, owners_of
from cluster.planner.fleet import CostModel, WorkerSpec, WorkerState
from cluster.planner.grid import Grid, grids, parse_grid
from cluster.planner.layout import Infeasible, Layout, Load, lay_out
from cluster.planner.predict import Prediction, predict
from cluster.planner.redundancy import Redundancy
from cluster.planner.replicate import replicate
from cluster.planner.shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A grid that was looked at: what it would take, or why it cannot be."""

    grid: Grid
    prediction: Prediction | None
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was chosen and why.

    owners: layer -> logical expert -> ids of the workers that should hold it, as in
        `wire.placement.Placement`; one each unless there are redundant experts.
    balancedness: layer -> mean / max of the busy times of the workers that share it, by the load
        that was given, else as if all experts were equal.
    alternatives: every grid looked at, the chosen one too, best first.
    fewer: why there are fewer redundant experts than asked for, which is no error; or empty.
    """

    grid: Grid
    owners: Owners
    prediction: Prediction
    balancedness: Mapping[int, float]
    alternatives: tuple[Alternative, ...]
    reasons: tuple[str, ...]
    fewer: str = ""

    @property
    def copies(self) -> int:
        """Of all experts in all layers."""
        return sum(len(ids) for experts in self.owners.values() for ids in experts)

    def experts_of(self, worker_id: str) -> dict[int, list[int]]:
        """Layer to ascending logical experts that `worker_id` should hold."""
        held = {
            layer: [expert for expert, ids in enumerate(experts) if worker_id in ids]
            for layer, experts in self.owners.items()
        }
        return {layer: experts for layer, experts in held.items() if experts}


def plan(
    shape: ModelShape,
    workers: Sequence[WorkerSpec],
    costs: CostModel,
    *,
    placement: str = "auto",
    load: Load | None = None,
    current: Owners | None = None,
    redundant: Redundancy = 0,
    strict: bool = True,
) -> Plan:
    """The placement with the shortest predicted step; ties go to the fewest messages.

    Args:
        workers: in the order in which they take their places in the grid.
        placement: `auto`, or the grid to use (see `parse_grid`).
        load: layer to tokens by logical expert; None: all experts equal.
        current: the owners that serve requests now; no expert then moves to a machine with other
            bits, since a request that is under way would not be continued exactly.
        redundant: copies in each layer besides the first ones, or `TWICE`. The prediction is that
            of the first copies alone. In layers that one worker holds whole they come as whole
            layers, as many as they add up to.
        strict: all copies of an expert have one fingerprint.

    Two workers, so fast a link and so cheap messages that bandwidth decides: expert-major.

    >>> shape = ModelShape(layers=(1, 2), experts=4, top_k=2, hidden=8, activation_bytes=4,
    ...                    expert_bytes=1_000_000)
    >>> fleet = [WorkerSpec(worker_id=name, node="n", expert_bandwidth=1e9) for name in "ab"]
    >>> costs = CostModel(rows=1, micro_batches=1, message_seconds=1e-6, latency_seconds=1e-6,
    ...                   link_bandwidth=1e9)
    >>> str(plan(shape, fleet, costs).grid)
    '1x2'
    >>> plan(shape, fleet, costs).owners[1]
    (('a',), ('a',), ('b',), ('b',))

    Messages of 5 ms each turn it round: one a layer is better than two.

    >>> costs = CostModel(rows=1, micro_batches=1, message_seconds=5e-3, latency_seconds=1e-6,
    ...                   link_bandwidth=1e9)
    >>> plan(shape, fleet, costs).owners
    {1: (('a',), ('a',), ('a',), ('a',)), 2: (('b',), ('b',), ('b',), ('b',))}

    Raises:
        PlanError: the grid asked for, or every grid, is impossible.
    """
    if not workers or not shape.layers:
        raise PlanError("there is nothing to plan without expert workers and routed experts")
    candidates = (
        grids(len(workers), len(shape.layers), shape.experts)
        if placement == "auto"
        else [parse_grid(placement, len(workers))]
    )
    built: list[tuple[Grid, Prediction, Owners]] = []
    refused: list[Alternative] = []
    for grid in candidates:
        layout = lay_out(shape, workers, grid, load)
        if isinstance(layout, Infeasible):
            refused.append(Alternative(grid=grid, prediction=None, refused=layout.reason))
        elif crossing := _crossing(layout, current, workers):
            reason = f"{crossing} experts would move to machines with other numerics"
            refused.append(Alternative(grid=grid, prediction=None, refused=reason))
        else:
            built.append((grid, predict(shape, layout, costs, load), _owners(shape, layout)))
    # Predictions are not good to a millionth: below that, fewer messages are the better bet.
    built.sort(key=lambda item: (round(item[1].step_seconds, 6), item[1].messages))
    crew = crew_of(
        [WorkerState(spec=worker) for worker in workers], shape.expert_bytes, strict=strict
    )
    weight = None if load is None else np.array([load[layer] for layer in shape.layers], np.float64)
    while built and redundant:
        copied = replicate(held_of(built[0][2], crew), weight, redundant, crew)
        if not isinstance(copied, Infeasible):
            built[0] = (*built[0][:2], owners_of(copied, shape.layers, crew))
            break
        refused.append(Alternative(grid=built[0][0], prediction=None, refused=copied.reason))
        built = built[1:]
    if not built:
        raise PlanError(_why_not(shape, workers, placement, refused))
    grid, prediction, owners = built[0]
    possible = [Alternative(grid=item[0], prediction=item[1]) for item in built]
    alternatives = (*possible, *refused)
    return Plan(
        grid=grid,
        owners=owners,
        prediction=prediction,
        balancedness=_balancedness(owners, weight, crew),
        alternatives=alternatives,
        reasons=_reasons(placement, alternatives),
        fewer=_fewer(owners, shape, redundant),
    )


def _fewer(owners: Owners, shape: ModelShape, redundant: Redundancy) -> str:
    if not isinstance(redundant, int):
        return ""
    wanted = redundant * len(shape.layers)
    placed = sum(len(ids) - 1 for experts in owners.values() for ids in experts)
    if placed >= wanted:
        return ""
    return (
        f"{placed} of {wanted} redundant experts are placed: no worker holds an expert twice, and "
        "layers that one worker holds are copied as a whole"
    )


def _balancedness(owners: Owners, load: Loads | None, crew: Crew) -> dict[int, float]:
    held = held_of(owners, crew)
    scores = balancedness(held, np.zeros(held.shape[:2]) if load is None else load, crew)
    return dict(zip(sorted(owners), scores.tolist(), strict=True))


def _crossing(layout: Layout, current: Owners | None, workers: Sequence[WorkerSpec]) -> int:
    """How many experts the layout moves from one fingerprint to another; unknown ones are alike."""
    if current is None:
        return 0
    prints = {worker.worker_id: worker.fingerprint for worker in workers}
    moves = 0
    for layer, shares in layout.items():
        for share in shares:
            for expert in share.experts:
                before = {prints.get(owner, "") for owner in current[layer][expert]} - {""}
                after = share.worker.fingerprint
                moves += bool(before and after and after not in before)
    return moves


def _owners(shape: ModelShape, layout: Layout) -> dict[int, tuple[tuple[str, ...], ...]]:
    owners: dict[int, tuple[tuple[str, ...], ...]] = {}
    for layer, shares in layout.items():
        by_expert = {
            expert: (share.worker.worker_id,) for share in shares for expert in share.experts
        }
        owners[layer] = tuple(by_expert[expert] for expert in range(shape.experts))
    return owners


def _reasons(placement: str, alternatives: Sequence[Alternative]) -> tuple[str, ...]:
    best = alternatives[0]
    if best.prediction is None:
        return ()
    reasons = [
        f"{best.grid}: {best.prediction.step_seconds * 1e3:.2f} ms a step, bound by "
        f"{best.prediction.bound}"
    ]
    if placement != "auto":
        reasons.append("asked for in the config, nothing else was compared")
    for other in alternatives[1:]:
        if other.prediction is None:
            reasons.append(f"not {other.grid}: {other.refused}")
        else:
            reasons.append(
                f"not {other.grid}: {other.prediction.step_seconds * 1e3:.2f} ms, bound by "
                f"{other.prediction.bound}"
            )
    return tuple(reasons)


def _why_not(
    shape: ModelShape,
    workers: Sequence[WorkerSpec],
    placement: str,
    looked_at: Sequence[Alternative],
) -> str:
    if placement != "auto":
        item = looked_at[0]
        return (
            f"placement {placement} is impossible: {item.refused}; "
            "use `auto`, or change `experts.workers`"
        )
    if not looked_at:
        return (
            f"{len(workers)} expert workers cannot share {len(shape.layers)} layers of "
            f"{shape.experts} experts; lower `experts.workers`"
        )
    return (
        f"no placement is possible: {looked_at[0].refused}; change `experts.workers` or "
        "`experts.memory_gb`"
    )
