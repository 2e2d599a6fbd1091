"""Packing one layer, worker by worker and copy by copy: the oracle of `cluster.planner.packing`."""

from __future__ import annotations

import numpy as np

from cluster.planner.crew import ANY_PRINT, Counts, Crew, Held, Loads
from cluster.planner.packing import Bench


def plain_pack(
    now: Held, copies: Counts, share: Loads, home: Counts, crew: Crew, bench: Bench
) -> Held:
    """bool [experts, workers]; arguments as those of `pack`, without the axis of layers."""
    places = [row.nonzero()[0].tolist() for row in now]
    packing = _Packing(share, copies, crew, bench)
    if bench.slack is None:
        for expert, there in enumerate(places):
            for place in there:
                packing.put(expert, place)
    # Of equal ones those of different workers take turns, so that none is left with its own.
    turn = (now.cumsum(axis=0) * now).max(axis=1, initial=0)
    for expert in np.lexsort((turn, -share)).tolist():
        if bench.slack is not None and places[expert]:
            packing.keep(expert, places[expert])
        packing.fill(expert, int(home[expert]))
    return packing.done


class _Packing:
    """A layer half packed. `key` orders the workers, as in `cluster.planner.packing`."""

    def __init__(self, share: Loads, copies: Counts, crew: Crew, bench: Bench) -> None:
        self.done = np.zeros((len(share), len(crew.ids)), np.bool_)
        self._share: list[float] = share.tolist()
        self._copies: list[int] = copies.tolist()
        self._crew, self._bench = crew, bench
        self._pace = 1.0 / crew.speed
        self._mixed = bool((crew.prints != crew.prints[0]).any())
        self._node: list[int] = crew.node.tolist()
        self._room: list[int] = bench.room.tolist()
        self._slots: list[int] = bench.slots.tolist()
        self._used = [0] * len(crew.ids)
        self._held: list[list[int]] = [[] for _ in share]
        total = float(share @ copies)
        # From the slightest reason to the gravest: has its share already, belongs to other
        # layers, comes after the spares, has a copy on its node (see `fill`).
        self._step = total * float(self._pace.max()) * 2.0 or 1.0
        self._slack = (
            (bench.slack or 0.0) * total / max(float(crew.speed[bench.reach].sum()), 1e-300)
        )
        late = 4.0 * ~bench.first + 2.0 * ~bench.reach + (bench.slots <= 0)
        self._key = np.where(crew.taking & (bench.room > 0), late * self._step, np.inf)

    def put(self, expert: int, place: int) -> None:
        self.done[expert, place] = True
        self._held[expert].append(place)
        self._used[place] += 1
        if self._used[place] >= self._room[place]:
            self._key[place] = np.inf
        else:
            self._key[place] += self._share[expert] * self._pace[place]
            if self._used[place] == self._slots[place]:
                self._key[place] += self._step

    def keep(self, expert: int, places: list[int]) -> None:
        """Those of its copies that are not much busier there than elsewhere: one a node."""
        finish = self._key + self._share[expert] * self._pace
        latest = float(finish.min()) + self._slack
        nodes: set[int] = set()
        for place in sorted(places, key=finish.__getitem__):
            if len(nodes) == self._copies[expert]:
                break
            good = finish[place] <= latest and self._used[place] < self._slots[place]
            if good and self._node[place] not in nodes:
                nodes.add(self._node[place])
                self.put(expert, place)

    def fill(self, expert: int, home: int) -> None:
        """The copies that it lacks."""
        held = self._held[expert]
        while len(held) < self._copies[expert]:
            finish = self._key + self._share[expert] * self._pace
            if home == ANY_PRINT and held:
                home = int(self._crew.prints[held[0]])
            if home != ANY_PRINT and self._mixed:
                finish[~self._crew.alike(home)] = np.inf
            if held:
                for place in held:
                    finish[self._crew.node == self._node[place]] += 8.0 * self._step
                finish[held] = np.inf
            place = int(finish.argmin())
            if finish[place] == np.inf:
                return
            self.put(expert, place)
