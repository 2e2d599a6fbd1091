"""A fleet and its placement as arrays, so that 60 layers of 384 experts on 128 workers are quick.

A placement is `held`, bool [layers, experts, workers], beside the names of its axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.planner.fleet import WorkerState

Held = NDArray[np.bool_]
Loads = NDArray[np.float64]
Counts = NDArray[np.int64]
Owners = Mapping[int, tuple[tuple[str, ...], ...]]

ANY_PRINT = -1
_NO_LIMIT = 1 << 40


@dataclass(frozen=True, kw_only=True, eq=False)
class Crew:
    """Workers by column; every array is [workers].

    node, prints: int64, equal numbers for equal nodes and fingerprints; `ANY_PRINT` where the
        fingerprint is not known, which is alike to all.
    speed: float64, of the fastest one. capacity: int64, experts that fit into the memory.
    live, taking, spare: bool; taking workers may be given experts.
    """

    ids: tuple[str, ...]
    node: Counts
    prints: Counts
    speed: Loads
    capacity: Counts
    live: Held
    taking: Held
    spare: Held

    @property
    def nodes(self) -> int:
        return int(self.node.max()) + 1 if len(self.ids) else 0

    @property
    def endless(self) -> bool:
        """Whether no worker's memory has a limit."""
        return bool((self.capacity == _NO_LIMIT).all())

    def alike(self, printed: int) -> Held:
        """bool [workers]: whose arithmetic has the bits of that fingerprint."""
        if printed == ANY_PRINT:
            return np.ones(len(self.ids), np.bool_)
        return np.asarray((self.prints == printed) | (self.prints == ANY_PRINT), np.bool_)


def crew_of(workers: Sequence[WorkerState], expert_bytes: int, *, strict: bool = True) -> Crew:
    """The arrays of a fleet; unless `strict`, all fingerprints count as alike.

    Workers whose node is not known ("") are taken to be on nodes of their own.
    """
    specs = [worker.spec for worker in workers]
    nodes = _numbers([spec.node or f"\0{spec.worker_id}" for spec in specs])
    prints = _numbers([spec.fingerprint if strict else "" for spec in specs])
    known = np.array([bool(strict and spec.fingerprint) for spec in specs], np.bool_)
    speed = np.array([spec.expert_bandwidth for spec in specs], np.float64)
    live = np.array([worker.live for worker in workers], np.bool_)
    leaving = np.array([worker.leaving for worker in workers], np.bool_)
    return Crew(
        ids=tuple(spec.worker_id for spec in specs),
        node=nodes,
        prints=np.where(known, prints, ANY_PRINT),
        speed=speed / speed.max(initial=0.0),
        capacity=np.array(
            [
                _NO_LIMIT if spec.memory_bytes is None else spec.memory_bytes // expert_bytes
                for spec in specs
            ],
            np.int64,
        ),
        live=live,
        taking=live & ~leaving,
        spare=np.array([worker.spare for worker in workers], np.bool_),
    )


def held_of(owners: Owners, crew: Crew) -> Held:
    """Owners as an array, layers in ascending order; owners that are no workers are left out."""
    column = {worker: place for place, worker in enumerate(crew.ids)}
    layers = sorted(owners)
    held = np.zeros((len(layers), len(owners[layers[0]]), len(crew.ids)), np.bool_)
    places = [
        (row, expert, column[worker])
        for row, layer in enumerate(layers)
        for expert, ids in enumerate(owners[layer])
        for worker in ids
        if worker in column
    ]
    if places:
        held[tuple(np.array(places).T)] = True
    return held


def hit(held: Held, axis: int | tuple[int, ...]) -> Held:
    """`held.any(axis)`, of which numpy's stubs do not know that it is an array."""
    return np.asarray(held.any(axis=axis), np.bool_)


def homes(held: Held, crew: Crew) -> Counts:
    """int64 [layers, experts]: the known fingerprint of the first holder, dead or alive."""
    known = held & (crew.prints != ANY_PRINT)
    home: Counts = np.where(hit(known, 2), crew.prints[known.argmax(axis=2)], ANY_PRINT)
    return home


def copies_in(held: Held) -> tuple[Counts, Counts, Counts]:
    """`held.nonzero()`, which takes ten times as long for three axes."""
    layers, experts, workers = np.unravel_index(np.flatnonzero(held), held.shape)
    return layers, experts, workers


def owners_of(
    held: Held, layers: Sequence[int], crew: Crew
) -> dict[int, tuple[tuple[str, ...], ...]]:
    """The array as owners, each expert's in the order of the workers."""
    names = tuple(crew.ids[place] for place in copies_in(held)[2].tolist())
    ends = held.sum(axis=2).cumsum().tolist()
    ids = [names[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    count = held.shape[1]
    return {layer: tuple(ids[row * count : (row + 1) * count]) for row, layer in enumerate(layers)}


def _numbers(names: Sequence[str]) -> Counts:
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int64)
