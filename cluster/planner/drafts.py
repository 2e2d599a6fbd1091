"""Layers packed side by side though they share the workers' memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.planner.crew import Counts, Crew, Held, Loads
from cluster.planner.packing import Bench, pack
from cluster.planner.redundancy import some_load


class Drafts:
    """Packs several layers at once, each as if the others kept to the memory that they have.

    Where memory is plenty that is all; a layer that then finds less of it is packed again alone.

    Args:
        rows: the layers to be packed.
        held: bool [layers, experts, workers], as it is; a layer may change once it was asked for.
        used: [workers], experts that all layers together hold now.
        copies: [layers, experts], to be packed. wanted: those that slots and shares are made for.
        load: [layers, experts], tokens. home: [layers, experts], fingerprints.
        reach: [layers, workers], who should hold experts of the layer.
        slack: see `Bench`.
    """

    def __init__(
        self,
        rows: Sequence[int],
        held: Held,
        used: Counts,
        copies: Counts,
        wanted: Counts,
        load: Loads,
        home: Counts,
        crew: Crew,
        reach: Held,
        slack: float | None = None,
    ) -> None:
        self._held, self._copies, self._wanted = held, copies, wanted
        self._share, self._home = some_load(load) / wanted, home
        self._crew, self._reach, self._slack = crew, reach, slack
        drafts = self._pack(list(rows), used) if rows else ()
        self._made: dict[int, Held] = dict(zip(rows, drafts, strict=True))

    def of(self, row: int, used: Counts) -> Held:
        """bool [experts, workers]: the layer packed, now that all layers together hold `used`."""
        draft = self._made[row]
        grown = used + draft.sum(axis=0) - self._held[row].sum(axis=0)
        if (grown <= np.maximum(self._crew.capacity, used)).all():
            return draft
        again: Held = self._pack([row], used)[0]
        return again

    def _pack(self, rows: list[int], used: Counts) -> Held:
        held, wanted, crew, reach = self._held[rows], self._wanted[rows], self._crew, self._reach
        bench = _bench(held, used, wanted, crew, reach[rows], self._slack)
        return pack(held, self._copies[rows], self._share[rows], self._home[rows], crew, bench)


def _bench(
    held: Held, used: Counts, copies: Counts, crew: Crew, reach: Held, slack: float | None
) -> Bench:
    """What the layers of `held` may use; slots are in proportion to speed, over the workers that
    the layer should be on."""
    speed = np.where(reach & crew.taking, crew.speed, 0.0)
    whole = np.maximum(speed.sum(axis=1, keepdims=True), 1e-300)
    slots = np.ceil(copies.sum(axis=1, keepdims=True) * speed / whole - 1e-9).astype(np.int64)
    spare = crew.spare & crew.taking
    return Bench(
        room=crew.capacity - used + held.sum(axis=1),
        slots=slots,
        reach=reach,
        first=np.broadcast_to(spare if spare.any() else True, reach.shape),
        slack=slack,
    )
