"""A better placement of one layer taken up expert by expert, as far as it pays off."""

from __future__ import annotations

import numpy as np

from cluster.planner.balance import balancedness
from cluster.planner.crew import Counts, Crew, Held, Loads, hit


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
        before = old * (weight / np.maximum(old.sum(axis=1), 1))[:, None]
        change = new * (weight / np.maximum(new.sum(axis=1), 1))[:, None] - before
        work = before.sum(axis=0)
        sharing = reach | hit(old, 0) | hit(new, 0)
        excess = np.maximum(work / crew.speed - work.sum() / crew.speed[sharing].sum(), 0.0)
        gain: Counts = new.sum(axis=1) - old.sum(axis=1)
        self._order = _exchanges(gain, weight, -change @ excess)
        way = work + change[self._order].cumsum(axis=0)
        self._busiest = np.where(sharing, way / crew.speed, 0.0).max(axis=1)
        grown = self._along(new.astype(np.int64) - old) + used
        total = old.sum() + self._along(gain)
        ends = sorted((int(old.sum()), int(new.sum())))
        self._fits = (grown <= crew.capacity).all(axis=1) & (total >= ends[0]) & (total <= ends[1])

    def best(self) -> Held:
        """`new` for so many experts that the busiest worker has the least to do; `old` if none fit.

        It keeps to the memory, and has as many copies in all as before or as in `new`: what one
        expert gains another gives up.
        """
        mixed = self._old.copy()
        if self._fits.any():
            busiest = np.where(self._fits, self._busiest, np.inf)
            taken = self._order[: int(busiest.argmin()) + 1]
            mixed[taken] = self._new[taken]
        return mixed

    def score(self, held: Held) -> float:
        """Its balancedness."""
        return float(balancedness(held[None], self._weight[None], self._crew, self._reach[None])[0])

    def _along(self, change: Counts) -> Counts:
        """Sums of a change after each expert of the way."""
        return np.asarray(change[self._order].cumsum(axis=0))


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
