"""Copies of experts put onto workers: the heaviest first, each to who is least busy.

DeepSeek's balanced packing, with workers of different speed and memory, experts that may stay
where they are, and copies kept apart: on different workers always, on different nodes while there
is one with room. Layers are independent and packed side by side, the heaviest expert of each at
once, so that numpy has rows enough to be quick; tests/support/plain_packing.py does it in words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.planner.crew import ANY_PRINT, Counts, Crew, Held, Loads, hit, homes


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """What each layer may use; arrays are [layers, workers].

    room: int64, experts of this layer that the memory can take, those already there included.
    slots: int64, how many it should have; more only to keep copies apart.
    reach: bool, the workers that the grid gives this layer; others only to keep copies apart.
    first: bool, workers to be filled before others (spares in a repair).
    slack: how much later than elsewhere a copy may be done where it is and stay there, as a part
        of the mean busy time; None: all stay.
    """

    room: Counts
    slots: Counts
    reach: Held
    first: Held
    slack: float | None = None


def pack(now: Held, copies: Counts, share: Loads, home: Counts, crew: Crew, bench: Bench) -> Held:
    """bool [layers, experts, workers]: `copies` of each expert, or fewer where none can take
    another.

    Args:
        now: [layers, experts, workers], where copies are now.
        copies, share: [layers, experts], wanted copies, and tokens of each copy.
        home: [layers, experts], fingerprint that all copies must have; `ANY_PRINT`: the first
            one's.
    """
    stay = bench.slack is None
    done = now.copy() if stay else np.zeros_like(now)
    packing = _Packing(done, copies, share, crew, bench)
    if stay:
        home = np.where(home == ANY_PRINT, homes(now, crew), home)
    # Of equal ones those of different workers take turns, so that none is left with its own.
    turn = (now.cumsum(axis=1, dtype=np.int32) * now).max(axis=2, initial=0)
    layers = np.arange(len(now))
    missing: Counts = copies - done.sum(axis=2)
    for experts in np.lexsort((turn, -share), axis=1).T:
        lacks = missing[layers, experts]
        if not lacks.any():
            continue
        there = now[layers, experts]
        one = _Turn(packing, lacks, share[layers, experts], home[layers, experts])
        if stay:
            one.stay(there)
        else:
            one.keep(there)
        one.fill()
        done[layers, experts] = one.done
    return done


class _Packing:
    """Layers half packed.

    Attributes:
        key: [layers, workers], orders the workers: busy time plus a step for every reason to come
            later, infinite for those that can take nothing.
        used: [layers, workers], copies.
        step: [layers, 1], longer than all that there is to do takes.
        slack: [layers, 1], seconds; see `Bench`.
    """

    def __init__(self, held: Held, copies: Counts, share: Loads, crew: Crew, bench: Bench) -> None:
        self.crew, self.bench, self.pace = crew, bench, 1.0 / crew.speed
        self.mixed = bool((crew.prints != crew.prints[0]).any())
        self.used: Counts = held.sum(axis=1)
        total = (share * copies).sum(axis=1, keepdims=True)
        # From the slightest reason to the gravest: has its share already, belongs to other
        # layers, comes after the spares, has a copy on its node (see `fill`).
        self.step = np.where(total > 0, total * self.pace.max() * 2.0, 1.0)
        speed = np.where(bench.reach, crew.speed, 0.0).sum(axis=1, keepdims=True)
        self.slack = (bench.slack or 0.0) * total / np.maximum(speed, 1e-300)
        late = 4.0 * ~bench.first + 2.0 * ~bench.reach + (self.used >= bench.slots)
        work = np.einsum("le,lew->lw", share, held) * self.pace
        able = crew.taking & (self.used < bench.room)
        self.key = np.where(able, work + late * self.step, np.inf)

    def put(self, rows: Counts, places: Counts, cost: Loads) -> None:
        """Books a copy on one worker of each of these layers, which takes it `cost` [rows]."""
        at = rows, places
        used = self.used[at] + 1
        key = self.key[at] + cost + (used == self.bench.slots[at]) * self.step[rows, 0]
        self.key[at] = np.where(used < self.bench.room[at], key, np.inf)
        self.used[at] = used


class _Turn:
    """One expert of each layer being put; `done` is who holds it, [layers, workers]."""

    def __init__(self, packing: _Packing, lacks: Counts, share: Loads, home: Counts) -> None:
        self.done = np.zeros(packing.key.shape, np.bool_)
        self._packing, self._lacks, self._home = packing, lacks, home
        self._time = share[:, None] * packing.pace
        # The same and the reasons against a further copy: one on the node, or the worker itself.
        self._cost = self._time.copy()

    def stay(self, there: Held) -> None:
        """All copies that are `there`, which are in the books."""
        self.done = there.copy()
        for place in hit(there, 0).nonzero()[0].tolist():
            rows = there[:, place].nonzero()[0]
            self._crowd(rows, np.full_like(rows, place))

    def keep(self, there: Held) -> None:
        """Of the copies that are `there` those that are not much busier than elsewhere: one a
        node."""
        packing, node = self._packing, self._packing.crew.node
        finish = packing.key + self._time
        good = there & (packing.used < packing.bench.slots) & (finish < np.inf)
        good &= finish <= finish.min(axis=1, keepdims=True) + packing.slack
        while len(rows := (hit(good, 1) & (self._lacks > 0)).nonzero()[0]):
            places = np.where(good[rows], finish[rows], np.inf).argmin(axis=1)
            self._put(rows, places)
            good[rows] &= node != node[places, None]

    def fill(self) -> None:
        """The copies that are lacking."""
        packing = self._packing
        rows = self._lacks.nonzero()[0]
        while len(rows):
            finish = packing.key[rows] + self._cost[rows]
            if packing.mixed:
                finish[~self._alike(rows)] = np.inf
            places = finish.argmin(axis=1)
            found = finish[np.arange(len(rows)), places] < np.inf
            rows = rows[found]
            self._put(rows, places[found])
            rows = rows[self._lacks[rows] > 0]

    def _put(self, rows: Counts, places: Counts) -> None:
        packing = self._packing
        packing.put(rows, places, self._time[rows, places])
        self.done[rows, places] = True
        self._lacks[rows] -= 1
        more = self._lacks[rows] > 0
        if more.any():
            self._crowd(rows[more], places[more])
        if packing.mixed:
            home = self._home[rows]
            self._home[rows] = np.where(home == ANY_PRINT, packing.crew.prints[places], home)

    def _crowd(self, rows: Counts, places: Counts) -> None:
        node = self._packing.crew.node
        self._cost[rows] += (node == node[places, None]) * (8.0 * self._packing.step[rows])
        self._cost[rows, places] = np.inf

    def _alike(self, rows: Counts) -> Held:
        """[rows, workers]: `Crew.alike` for each."""
        prints, home = self._packing.crew.prints, self._home[rows, None]
        return np.asarray((prints == home) | (prints == ANY_PRINT) | (home == ANY_PRINT))
