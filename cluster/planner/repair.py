"""Workers lost, to be emptied, or to be fewer or more: what has to be loaded where."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.errors import PlanError
from cluster.planner.balance import work_of
from cluster.planner.crew import Crew, Held, Loads, Owners, crew_of, held_of, hit
from cluster.planner.fleet import WorkerState
from cluster.planner.rebalance import Budget, Rebalance, reach_of, rebalance
from cluster.planner.redundancy import Redundancy
from cluster.planner.restore import restore
from cluster.planner.transition import Transition, transition


@dataclass(frozen=True, kw_only=True)
class Repair:
    """lost: layer -> experts without a live copy; rows that need them are parked.

    nowhere: layer -> those of the lost for which nobody has room and the same bits.
    transition: the lost are loaded before missing copies are.
    """

    transition: Transition
    lost: Mapping[int, tuple[int, ...]]
    nowhere: Mapping[int, tuple[int, ...]]


def repair(
    current: Owners,
    workers: Sequence[WorkerState],
    *,
    redundant: Redundancy,
    expert_bytes: int,
    load: Loads | None = None,
    strict: bool = True,
) -> Repair:
    """Every expert alive again and with its copies: spares first, then who has room and is idle.

    Experts go only to machines with the bits that they had. Nothing that is alive moves, except
    that a copy which is not an expert's only one gives way to a lost expert when memory is full.

    Args:
        current: the owners before the loss, the dead ones too: their fingerprints bind.
        workers: as in `rebalance`; the dead ones with `live=False`.
        load: [layers, experts], tokens; None: all equal.
    """
    layers = tuple(sorted(current))
    crew = crew_of(workers, expert_bytes, strict=strict)
    ever = held_of(current, crew)
    held = ever & crew.live
    weight = np.zeros(ever.shape[:2]) if load is None else np.asarray(load, np.float64)
    target = restore(held & crew.taking, ever, weight, redundant, crew, reach_of(held, crew))
    steps = transition(ever, target, layers, crew)
    return Repair(
        transition=steps,
        lost=_without_owner(held, layers),
        nowhere=_without_owner(held_of(steps.owners, crew) & crew.live, layers),
    )


def drain(
    current: Owners,
    workers: Sequence[WorkerState],
    leaving: Collection[str],
    *,
    redundant: Redundancy,
    expert_bytes: int,
    load: Loads | None = None,
    strict: bool = True,
) -> Repair:
    """Empties workers, named by their ids or their nodes. What stays on them has nowhere to go and
    is still in the transition's owners; else they own nothing after the last step.

    Raises:
        PlanError: a name is neither a worker's nor a node's.
    """
    known = {worker.spec.worker_id for worker in workers} | {w.spec.node for w in workers}
    if unknown := sorted(set(leaving) - known):
        raise PlanError(f"there is no worker or node {', '.join(unknown)}")
    marked = [
        dataclasses.replace(worker, leaving=True)
        if worker.spec.worker_id in leaving or worker.spec.node in leaving
        else worker
        for worker in workers
    ]
    return repair(
        current,
        marked,
        redundant=redundant,
        expert_bytes=expert_bytes,
        load=load,
        strict=strict,
    )


@dataclass(frozen=True, kw_only=True)
class Scale:
    """leaving: workers that own nothing after the last step and can then be ended."""

    leaving: tuple[str, ...]
    rebalance: Rebalance


def scale(
    current: Owners,
    load: Loads,
    workers: Sequence[WorkerState],
    count: int,
    *,
    redundant: Redundancy,
    expert_bytes: int,
    budget: Budget | None = None,
    strict: bool = True,
) -> Scale:
    """Work for `count` live workers that are not spares.

    More: the new ones are among `workers`, live and empty, and get their part. Fewer: those leave
    whose nodes have the most workers, then who has the least work.

    Raises:
        PlanError: there are not so many workers, `count` is not positive, or what stays cannot hold
            every expert.
    """
    serving = [worker for worker in workers if worker.live and not worker.spare]
    if not 1 <= count <= len(serving):
        raise PlanError(f"cannot scale to {count} expert workers: {len(serving)} are ready")
    crew = crew_of(workers, expert_bytes, strict=strict)
    held = held_of(current, crew) & crew.live
    leaving = _least_missed(held, np.asarray(load, np.float64), crew, len(serving) - count)
    marked = [
        dataclasses.replace(worker, leaving=True) if worker.spec.worker_id in leaving else worker
        for worker in workers
    ]
    plan = rebalance(
        current,
        load,
        marked,
        redundant=redundant,
        expert_bytes=expert_bytes,
        budget=budget,
        strict=strict,
    )
    kept = {
        ids for experts in plan.transition.owners.values() for owners in experts for ids in owners
    }
    if stuck := sorted(kept & set(leaving)):
        raise PlanError(
            f"{count} expert workers cannot hold every expert with the same bits: "
            f"{', '.join(stuck)} would have to stay"
        )
    return Scale(leaving=leaving, rebalance=plan)


def _least_missed(held: Held, load: Loads, crew: Crew, count: int) -> tuple[str, ...]:
    work = work_of(held, load).sum(axis=0) / crew.speed
    staying = {
        place for place in range(len(crew.ids)) if crew.live[place] and not crew.spare[place]
    }
    leaving: list[str] = []
    for _ in range(count):
        crowd = np.bincount(crew.node[sorted(staying)], minlength=crew.nodes)
        place = min(staying, key=lambda p: (not crew.taking[p], -crowd[crew.node[p]], work[p], -p))
        staying.discard(place)
        leaving.append(crew.ids[place])
    return tuple(leaving)


def _without_owner(held: Held, layers: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    missing = ~hit(held, 2)
    return {
        layer: tuple(missing[row].nonzero()[0].tolist())
        for row, layer in enumerate(layers)
        if missing[row].any()
    }
