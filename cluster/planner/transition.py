"""From one placement to another while requests run: load, publish, drain, evict, in waves.

New copies are loaded before old ones go, as far as memory allows. Where it does not, a copy goes
first only if its expert keeps another live owner; what cannot be done even so is left out and
named, and the placement reached keeps the old copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from cluster.planner.crew import Counts, Crew, Held, Owners, copies_in, hit, owners_of

Experts: TypeAlias = Mapping[int, tuple[int, ...]]
Copy: TypeAlias = tuple[int, int, str]


@dataclass(frozen=True, kw_only=True)
class Load:
    """`worker_id` loads the experts (layer -> ascending logical ones); they serve when it is done.
    The loads between two other steps may run at once."""

    worker_id: str
    experts: Experts


@dataclass(frozen=True, kw_only=True)
class Publish:
    """A new epoch with these owners. Its workers hold all of it by now."""

    owners: Owners


@dataclass(frozen=True, kw_only=True)
class Drain:
    """Wait until every router has the epoch published last, and calls for these experts of
    `worker_id` from before it have ended."""

    worker_id: str
    experts: Experts


@dataclass(frozen=True, kw_only=True)
class Evict:
    """`worker_id` drops the experts; no published placement asks it for them any more."""

    worker_id: str
    experts: Experts


Step: TypeAlias = Load | Publish | Drain | Evict


@dataclass(frozen=True, kw_only=True)
class Transition:
    """The steps in order; empty when nothing has to change.

    owners: the new wish, as far as it can be reached. It differs from the last epoch in experts
        that nobody alive can take: they remain a dead worker's, so that their bits are remembered.
    evict_first: copies (layer, expert, worker) that go before their successors are loaded; their
        experts have fewer copies than wanted for that time.
    blocked: copies that were to be loaded and cannot: no memory, and nothing that could go first.
    """

    steps: tuple[Step, ...]
    owners: Owners
    evict_first: tuple[Copy, ...] = ()
    blocked: tuple[Copy, ...] = ()

    @property
    def copies_loaded(self) -> int:
        return sum(
            len(experts)
            for step in self.steps
            if isinstance(step, Load)
            for experts in step.experts.values()
        )


def transition(held: Held, target: Held, layers: tuple[int, ...], crew: Crew) -> Transition:
    """The steps from `held` to `target`, both [layers, experts, workers].

    What `held` says of dead workers counts for experts that `target` gives to nobody: they stay
    theirs, should they come back.

    An expert that `target` gives fewer copies is let down to that number, none sooner.
    """
    dead = held & ~crew.live
    held = held & crew.live
    target = target & crew.live
    wanted = np.maximum(target.sum(axis=2), 1)
    steps: list[Step] = []
    early: list[Copy] = []
    blocked: list[Copy] = []
    while (held != target).any():
        room = crew.capacity - held.sum(axis=(0, 1))
        loads = _that_fit(target & ~held, held, room)
        held = held | loads
        goes = _let_go(held & ~target, held, np.minimum(wanted, held.sum(axis=2)))
        if not loads.any() and not goes.any():
            missing = target & ~held
            goes = _first_to_go(missing, held & ~target, held, room)
            if not goes.any():
                blocked += _copies(missing, layers, crew)
                break
            early += _copies(goes, layers, crew)
        steps += [Load(worker_id=w, experts=e) for w, e in _by_worker(loads, layers, crew)]
        held = held & ~goes
        steps.append(Publish(owners=owners_of(held, layers, crew)))
        leaving = _by_worker(goes, layers, crew)
        steps += [Drain(worker_id=w, experts=e) for w, e in leaving]
        steps += [Evict(worker_id=w, experts=e) for w, e in leaving]
    return Transition(
        steps=tuple(steps),
        owners=owners_of(held | dead & ~hit(held, 2)[..., None], layers, crew),
        evict_first=tuple(early),
        blocked=tuple(blocked),
    )


def _that_fit(missing: Held, held: Held, room: Counts) -> Held:
    """Of the missing copies those that the memory takes now: experts with the fewest copies first,
    since rows may wait for them."""
    enough = missing.sum(axis=(0, 1)) <= room
    chosen: Held = missing & enough
    copies = held.sum(axis=2)
    for place in (~enough).nonzero()[0].tolist():
        wanted = np.argwhere(missing[:, :, place])
        scarce = np.argsort(copies[tuple(wanted.T)], kind="stable")
        for layer, expert in wanted[scarce][: max(0, int(room[place]))].tolist():
            chosen[layer, expert, place] = True
    return chosen


def _let_go(surplus: Held, held: Held, least: Counts) -> Held:
    """Of the surplus copies as many as leave each expert `least`; the first workers' ones."""
    may = held.sum(axis=2) - least
    chosen: Held = surplus & (surplus.sum(axis=2) <= may)[..., None]
    layer, expert = (hit(surplus, 2) & ~hit(chosen, 2) & (may > 0)).nonzero()
    rows = surplus[layer, expert]
    chosen[layer, expert] = rows & (rows.cumsum(axis=1) <= may[layer, expert, None])
    return chosen


def _first_to_go(missing: Held, surplus: Held, held: Held, room: Counts) -> Held:
    """One copy on a full worker that keeps another live owner and makes room for a missing one."""
    chosen = np.zeros_like(held)
    full = hit(missing, (0, 1)) & (room <= 0)
    free = surplus & (held.sum(axis=2) > 1)[..., None] & full
    if free.any():
        chosen[np.unravel_index(int(free.argmax()), held.shape)] = True
    return chosen


def _by_worker(copies: Held, layers: tuple[int, ...], crew: Crew) -> list[tuple[str, Experts]]:
    found: dict[int, dict[int, list[int]]] = {}
    for row, expert, place in zip(*(axis.tolist() for axis in copies_in(copies)), strict=True):
        found.setdefault(place, {}).setdefault(layers[row], []).append(expert)
    return [
        (crew.ids[place], {layer: tuple(ids) for layer, ids in experts.items()})
        for place, experts in sorted(found.items())
    ]


def _copies(copies: Held, layers: tuple[int, ...], crew: Crew) -> list[Copy]:
    return [(layers[row], expert, crew.ids[place]) for row, expert, place in np.argwhere(copies)]
