"""Copies of experts put onto workers: the heaviest first, each to who is least busy.

DeepSeek's balanced packing, with workers of different speed and memory, experts that may stay
where they are, and copies kept apart: on different workers always, on different nodes while there
is one with room. Layers are independent and packed side by side, the heaviest expert of each at
once, so that numpy has rows enough to be quick; tests/support/plain_packing.py does it in words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.planner.crew import ANY_PRINT, Counts, Crew, Held, Loads, copies_in, hit, homes

_LAST = np.finfo(np.float64).max


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
    if stay:
        home = np.where(home == ANY_PRINT, homes(now, crew), home)
    packing = _Packing(now.copy() if stay else np.zeros_like(now), copies, share, crew, bench)
    layers = packing.layers
    missing: Counts = copies - packing.done.sum(axis=2)
    for experts in np.lexsort((_turns(now), -share), axis=1).T:
        lacks = missing[layers, experts]
        if not (lacks > 0).any():
            continue
        there = now[layers, experts]
        one = _Turn(packing, experts, lacks, share[layers, experts], home[layers, experts])
        if stay:
            one.stay(there)
        else:
            one.keep(there)
        one.fill()
    return packing.done


def _turns(now: Held) -> Counts:
    """[layers, experts]: an expert's number among the copies of its worker; the highest, if it has
    several. Of equal experts those of different workers take turns, so that none is left with its
    own."""
    layers, experts, places = copies_in(now)
    worker = layers * now.shape[2] + places
    order = np.argsort(worker, kind="stable")
    ends = np.bincount(worker, minlength=now.shape[0] * now.shape[2]).cumsum()
    starts = np.concatenate(([0], ends[:-1]))
    turns: Counts = np.zeros(now.shape[:2], np.int64)
    number = np.arange(1, len(order) + 1) - starts[worker[order]]
    np.maximum.at(turns, (layers[order], experts[order]), number)
    return turns


class _Packing:
    """Layers half packed.

    Attributes:
        done: [layers, experts, workers], who holds what so far.
        key: [layers, workers], orders the workers: busy time plus a step for every reason to come
            later, infinite for those that can take nothing.
        used: [layers, workers], copies.
        layers: [layers], their numbers.
        together: [workers, workers], 1 for those on one node, else 0.
        step: [layers, 1], longer than all that there is to do takes.
        slack: [layers, 1], seconds; see `Bench`.
    """

    def __init__(self, done: Held, copies: Counts, share: Loads, crew: Crew, bench: Bench) -> None:
        self.done, self.crew, self.bench, self.pace = done, crew, bench, 1.0 / crew.speed
        self.layers = np.arange(len(done))
        self.together = (crew.node[:, None] == crew.node).astype(np.float64)
        self.mixed = bool((crew.prints != crew.prints[0]).any())
        self.used: Counts = done.sum(axis=1)
        total = (share * copies).sum(axis=1, keepdims=True)
        # From the slightest reason to the gravest: has its share already, belongs to other
        # layers, comes after the spares, has a copy on its node (see `_Turn`).
        self.step = np.where(total > 0, total * self.pace.max() * 2.0, 1.0)
        speed = np.where(bench.reach, crew.speed, 0.0).sum(axis=1, keepdims=True)
        self.slack = (bench.slack or 0.0) * total / np.maximum(speed, 1e-300)
        late = 4.0 * ~bench.first + 2.0 * ~bench.reach + (self.used >= bench.slots)
        work = np.einsum("le,lew->lw", share, done) * self.pace
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
    """One expert of each layer being put."""

    def __init__(
        self, packing: _Packing, experts: Counts, lacks: Counts, share: Loads, home: Counts
    ) -> None:
        self._packing, self._experts, self._lacks = packing, experts, lacks
        self._share, self._home = share, home
        # [layers, workers]: infinite where a copy is, more than anything on the nodes of copies.
        self._against: Loads | None = None

    def stay(self, there: Held) -> None:
        """All copies that are `there`, which are in the books."""
        for place in hit(there, 0).nonzero()[0].tolist():
            rows = there[:, place].nonzero()[0]
            self._crowd(rows, np.full_like(rows, place))

    def keep(self, there: Held) -> None:
        """Of the copies that are `there` those that are not much busier than elsewhere: one a
        node."""
        packing, node = self._packing, self._packing.crew.node
        time = self._share[:, None] * packing.pace
        finish = packing.key + time
        soonest = finish[packing.layers, finish.argmin(axis=1)]
        latest = np.minimum(soonest + packing.slack[:, 0], _LAST)
        # As `there.nonzero()`, which takes twenty times as long.
        rows, places = np.divmod(np.flatnonzero(there), there.shape[1])
        good = finish[rows, places] <= latest[rows]
        good &= packing.used[rows, places] < packing.bench.slots[rows, places]
        rows, places = rows[good], places[good]
        order = np.lexsort((finish[rows, places], rows))
        rows, places = rows[order], places[order]
        taken = np.full(len(there), -1)
        while len(rows):
            first = np.concatenate(([True], rows[1:] != rows[:-1]))
            self._put(rows[first], places[first])
            taken[rows[first]] = node[places[first]]
            more = ~first & (self._lacks[rows] > 0) & (node[places] != taken[rows])
            rows, places = rows[more], places[more]

    def fill(self) -> None:
        """The copies that are lacking."""
        packing = self._packing
        rows = (self._lacks > 0).nonzero()[0]
        while len(rows):
            finish = packing.key[rows] + self._share[rows, None] * packing.pace
            if self._against is not None:
                finish += self._against[rows]
            if packing.mixed:
                finish[~self._alike(rows)] = np.inf
            places = finish.argmin(axis=1)
            found = finish[packing.layers[: len(rows)], places] < np.inf
            rows = rows[found]
            self._put(rows, places[found])
            rows = rows[self._lacks[rows] > 0]

    def _put(self, rows: Counts, places: Counts) -> None:
        packing = self._packing
        packing.put(rows, places, self._share[rows] * packing.pace[places])
        packing.done[rows, self._experts[rows], places] = True
        self._lacks[rows] -= 1
        more = self._lacks[rows] > 0
        if more.any():
            self._crowd(rows[more], places[more])
        if packing.mixed:
            home = self._home[rows]
            self._home[rows] = np.where(home == ANY_PRINT, packing.crew.prints[places], home)

    def _crowd(self, rows: Counts, places: Counts) -> None:
        packing = self._packing
        if self._against is None:
            self._against = np.zeros(packing.key.shape)
        self._against[rows] += packing.together[places] * (8.0 * packing.step[rows])
        self._against[rows, places] = np.inf

    def _alike(self, rows: Counts) -> Held:
        """[rows, workers]: `Crew.alike` for each."""
        prints, home = self._packing.crew.prints, self._home[rows, None]
        return np.asarray((prints == home) | (prints == ANY_PRINT) | (home == ANY_PRINT))
