"""Expert loads of the last window -> a better placement, and the steps that lead there.

Layers are looked at on their own, since a step takes as long as the busiest worker of each layer.
A layer is left alone unless it gains more than the hysteresis; then it is packed anew, with every
copy that can stay where it is staying there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.planner.balance import balancedness, fleet_balancedness
from cluster.planner.crew import Counts, Crew, Held, Loads, Owners, crew_of, held_of, hit, homes
from cluster.planner.drafts import Drafts
from cluster.planner.fleet import WorkerState
from cluster.planner.nudge import nudge
from cluster.planner.redundancy import Redundancy, copies_wanted, some_load
from cluster.planner.restore import restore, spread
from cluster.planner.swap import Swap
from cluster.planner.transition import Transition, transition
from cluster.planner.whole import whole_layers

# A copy stays where it is if it is done there at most so much later, as a part of the mean busy
# time: more of it moves less and balances worse (0.05: 0.986 with 8 workers and Zipf's law).
_SLACK = 0.05
# What the part of a layer that the budget pays for has to gain.
_SLIGHT = 1e-3
# Copies that find room on further workers only bring these into their layer, and what leaves one
# makes room for others: look again.
_ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class Budget:
    """copies: loads that one rebalance may ask for. bytes: weights that these may read. None: any.

    What is missing (experts with fewer copies than wanted) is loaded whatever the budget says.
    """

    copies: int | None = None
    bytes: int | None = None

    def allows(self, expert_bytes: int) -> int:
        """Copies."""
        bounds = [1 << 40]
        if self.copies is not None:
            bounds.append(self.copies)
        if self.bytes is not None:
            bounds.append(self.bytes // expert_bytes)
        return min(bounds)


@dataclass(frozen=True, kw_only=True)
class Rebalance:
    """balancedness: layer -> mean / max of its workers' busy times, before and after.

    fleet_before, fleet_after: the same over all layers together; workers that are to join count
        before too, as those that have nothing to do.
    transition: the steps; its owners are the new placement.
    """

    transition: Transition
    before: Mapping[int, float]
    after: Mapping[int, float]
    fleet_before: float
    fleet_after: float


def rebalance(
    current: Owners,
    load: Loads,
    workers: Sequence[WorkerState],
    *,
    redundant: Redundancy,
    expert_bytes: int,
    budget: Budget | None = None,
    hysteresis: float = 0.03,
    strict: bool = True,
) -> Rebalance:
    """The placement for the loads of a window; no steps when it is good enough as it is.

    Args:
        current: the owners now; those that are dead or unknown count as lost, those that leave are
            emptied, and both are made good before anything is balanced.
        load: [layers, experts], tokens, layers ascending as in `current`; all 0: all experts equal.
        workers: everyone who holds experts or could.
        redundant: see `copies_wanted`.
        hysteresis: gain in balancedness below which a layer is left alone, 0.03 = 3 points.
        strict: copies of an expert are kept to one fingerprint.
    """
    layers = tuple(sorted(current))
    crew = crew_of(workers, expert_bytes, strict=strict)
    crew = dataclasses.replace(crew, taking=crew.taking & ~crew.spare)
    ever = held_of(current, crew)
    held, home = ever & crew.live, homes(ever, crew)
    load = np.asarray(load, np.float64)
    wanted = copies_wanted(load, redundant, max(1, int(crew.taking.sum())))
    limits = _Limits(copies=(budget or Budget()).allows(expert_bytes), least=max(hysteresis, 1e-3))
    target, reach = held & crew.taking, reach_of(held, crew)
    for _ in range(_ROUNDS):
        before, shared = target, reach
        whole = restore(target, ever, load, redundant, crew, reach)
        target = _balance(whole, home, load, wanted, crew, reach, limits)
        reach = reach_of(target, crew)
        if (target == before).all() or (crew.endless and (reach == shared).all()):
            break
        limits = dataclasses.replace(limits, copies=limits.copies - int((target & ~whole).sum()))
    steps = transition(ever, target, layers, crew)
    reached = held_of(steps.owners, crew) & crew.live
    return Rebalance(
        transition=steps,
        before=dict(zip(layers, balancedness(held, load, crew, reach).tolist(), strict=True)),
        after=dict(zip(layers, balancedness(reached, load, crew, reach).tolist(), strict=True)),
        fleet_before=fleet_balancedness(held, load, crew, hit(reached, (0, 1))),
        fleet_after=fleet_balancedness(reached, load, crew),
    )


def reach_of(held: Held, crew: Crew) -> Held:
    """bool [layers, workers]: who should share each layer: who does now, and newcomers.

    A newcomer is a worker that holds nothing. It does not join layers whose holders all hold the
    whole layer: cutting them up would multiply the messages.
    """
    sharing: Held = hit(held, 1) & crew.taking
    newcomers = crew.taking & ~hit(held, (0, 1))
    sharing |= ~whole_layers(held)[:, None] & newcomers
    # All that held a layer are gone: anybody may.
    sharing[~hit(sharing, 1)] = crew.taking
    return sharing


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """copies: that may be loaded. least: gain in balancedness that a layer is touched for."""

    copies: int
    least: float


def _balance(
    held: Held, home: Counts, load: Loads, wanted: Counts, crew: Crew, reach: Held, limits: _Limits
) -> Held:
    """The worst layers first, until none gains enough or the budget of copies is spent."""
    first, held = held, held.copy()
    used: Counts = held.sum(axis=(0, 1))
    moved = 0
    settled = whole_layers(held)
    while not settled.all():
        score = balancedness(held, load, crew, reach)
        settled |= score > 1.0 - limits.least
        rows = [layer for layer in np.argsort(score, kind="stable").tolist() if not settled[layer]]
        drafts = Drafts(rows, held, used, wanted, wanted, load, home, crew, reach, _SLACK)
        for layer in rows:
            old, weight = held[layer], some_load(load[layer])
            new = drafts.of(layer, used)
            # Where memory does not do for what an expert has now, it keeps that.
            poorer = new.sum(axis=1) < np.minimum(old.sum(axis=1), wanted[layer])
            new[poorer] = old[poorer]
            swap = Swap(old, new, weight, crew, reach[layer], used)
            new = swap.best()
            if swap.score(new) - score[layer] < limits.least:
                settled[layer] = True
                continue
            kept, left = int((old & ~first[layer]).sum()), limits.copies - moved
            if int((new & ~first[layer]).sum()) - kept > left:
                room = crew.capacity - used + old.sum(axis=0)
                new = nudge(old, weight, home[layer], crew, reach[layer], room, left)
                settled[layer] = True
                if swap.score(new) <= score[layer] + _SLIGHT:
                    continue
            moved += int((new & ~first[layer]).sum()) - kept
            used += new.sum(axis=0) - old.sum(axis=0)
            held[layer] = new
    spread(held, home, load, crew, reach)
    return held
