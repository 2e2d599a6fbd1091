"""A better placement of one layer taken up expert by expert, as far as it pays off."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from cluster.planner.balance import balancedness
from cluster.planner.crew import Counts, Crew, Held, Loads, hit

Change = TypeVar("Change", Loads, Counts)


class Swap:
    """The way from one placement of a layer to another, hottest experts first.

    Args:
        old, new: [experts, workers].
        weight: [experts], tokens. reach: [workers], who shares the layer.
        used: [workers], experts that all layers together hold before.
    """

    def __init__(
        self,
        old: Held,
        new: Held,
        weight: Loads,
        crew: Crew,
        reach: Held,
        used: Counts,
    ) -> None:
        self._old, self._new, self._weight, self._crew, self._reach = old, new, weight, crew, reach
        moved = hit(old != new, 1).nonzero()[0]
        share = weight / np.maximum(old.sum(axis=1), 1)
        after = weight / np.maximum(new.sum(axis=1), 1)
        change = new[moved] * after[moved, None] - old[moved] * share[moved, None]
        work = np.einsum("e,ew->w", share, old, optimize=False)
        sharing = reach | hit(old, 0) | hit(new, 0)
        excess = np.maximum(work / crew.speed - work.sum() / crew.speed[sharing].sum(), 0.0)
        gain: Counts = new.sum(axis=1) - old.sum(axis=1)
        relief, place = np.zeros(len(gain)), np.full(len(gain), -1)
        relief[moved], place[moved] = -change @ excess, np.arange(len(moved))
        order = _exchanges(gain, weight, relief)
        self._order = order = order[place[order] >= 0]
        way = work[:, None] + _along(change[place[order]].T)
        self._busiest = (way / np.where(sharing, crew.speed, np.inf)[:, None]).max(axis=0)
        total = old.sum() + _along(gain[order])
        ends = sorted((int(old.sum()), int(new.sum())))
        self._fits = (total >= ends[0]) & (total <= ends[1])
        if not crew.endless:
            grown = used[:, None] + _along((new[order].astype(np.int64) - old[order]).T)
            self._fits &= (grown <= crew.capacity[:, None]).all(axis=0)

    def best(self) -> Held:
        """`new` for so many experts that the busiest worker has the least to do; `old` if none fit
        or none help.

        It keeps to the memory, and has as many copies in all as before or as in `new`: what one
        expert gains another gives up.
        """
        busiest = np.where(self._fits, self._busiest, np.inf)
        busiest[0] = self._busiest[0]
        taken = self._order[: int(busiest.argmin())]
        mixed = self._old.copy()
        mixed[taken] = self._new[taken]
        return mixed

    def score(self, held: Held) -> float:
        """Its balancedness."""
        return float(balancedness(held[None], self._weight[None], self._crew, self._reach[None])[0])


def _along(change: Change) -> Change:
    """Sums over the last axis after none, one, two and so on of the experts of the way."""
    way = np.zeros((*change.shape[:-1], change.shape[-1] + 1), change.dtype)
    np.ascontiguousarray(change).cumsum(axis=-1, out=way[..., 1:])
    return way


def _exchanges(gain: Counts, weight: Loads, relief: Loads) -> Counts:
    """Experts in an order in which those that give up copies follow those that gain as many.

    Those gain and move first that relieve the busiest workers most; the coldest lose first.
    """
    turn = np.zeros(len(gain))
    best = np.argsort(-relief, kind="stable")
    gains, moves = best[gain[best] > 0], best[gain[best] == 0]
    cold = np.argsort(weight, kind="stable")
    losses = cold[gain[cold] < 0]
    turn[gains] = gain[gains].cumsum() - gain[gains]
    turn[losses] = -gain[losses].cumsum() - 0.5
    turn[moves] = np.arange(len(moves))
    return np.asarray(np.lexsort((gain < 0, turn)))
