"""Which workers can be asked for which expert now, and the choice between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOBODY = -1
_SEVERAL = -2

Owners = NDArray[np.int16]
Ids = NDArray[np.uint16]
"""Logical expert ids."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveTable:
    """A snapshot; made anew whenever a worker comes, goes or changes what it holds.

    live: bool [layers, experts, workers].
    only: int16 [layers, experts], the one live owner, NOBODY, or _SEVERAL.
    replicated: for each layer, whether it has an expert with several live owners.
    crowded: for each layer, whether it has an expert with more than two.
    sole: for each layer, the worker that is the one live owner of all its experts, or NOBODY.
    """

    live: NDArray[np.bool_]
    only: Owners
    replicated: tuple[bool, ...]
    crowded: tuple[bool, ...]
    sole: tuple[int, ...]

    @classmethod
    def of(cls, live: NDArray[np.bool_]) -> LiveTable:
        layers, _, workers = live.shape
        if workers == 0:
            only, no = np.full(live.shape[:2], NOBODY, np.int16), (False,) * layers
            sole = (NOBODY,) * layers
            return cls(live=live, only=only, replicated=no, crowded=no, sole=sole)
        number = live.sum(axis=2)
        only = live.argmax(axis=2).astype(np.int16)
        only[number == 0] = NOBODY
        only[number > 1] = _SEVERAL
        return cls(
            live=live,
            only=only,
            replicated=tuple((number > 1).any(axis=1).tolist()),
            crowded=tuple((number > 2).any(axis=1).tolist()),
            sole=tuple(
                int(owners[0]) if owners[0] >= 0 and (owners == owners[0]).all() else NOBODY
                for owners in only
            ),
        )

    def is_live(self, layer: int, expert: int) -> bool:
        """`layer` is an index into the table here and below, not the checkpoint's number."""
        return bool(self.only[layer, expert] != NOBODY)

    def settled(self, layer: int, experts: Ids) -> Owners:
        """The one live owner of each expert, where none has several; NOBODY for none."""
        owners: Owners = self.only[layer].take(experts)
        return owners

    def choose(
        self,
        layer: int,
        experts: Ids,
        load: NDArray[np.float64],
        without: NDArray[np.bool_] | None = None,
        order: NDArray[np.int64] | None = None,
    ) -> Owners:
        """An owner for each expert of each row.

        A row whose experts all have one common owner goes there whole, to the least loaded such
        worker: one row out and one combined row back. The other experts each go to their least
        loaded owner. Ties go by worker index, turned by the expert's id so that equal replicas
        share the work; the same arguments always give the same choice.

        Args:
            experts: [rows, top_k] logical ids.
            load: [workers], expert-token pairs on their way.
            without: bool [workers], workers not to be asked.
            order: [workers], a permutation. Of more than two owners only the first two in it are
                compared (power of two choices): each router knows but its own load, so that
                routers which all took the least loaded would all take the same worker. One order
                for all rows, since each further worker is a further message.

        Returns: int16 [rows, top_k], worker index or NOBODY.
        """
        if without is None and not self.replicated[layer]:
            return self.settled(layer, experts)
        live = self.live[layer] if without is None else self.live[layer] & ~without
        covering = live[experts].all(axis=1)
        covered = covering.any(axis=1)
        if order is not None:
            covering, live = _first_two(covering, order), _first_two(live, order)
        owners: Owners = np.empty(experts.shape, np.int16)
        best = np.where(covering[covered], load, np.inf).argmin(axis=1)
        owners[covered] = best[:, None]
        if not covered.all():
            rest = experts[~covered]
            owners[~covered] = _least_loaded(live, self._base_load(layer, rest, load))[rest]
        return owners

    def _base_load(
        self, layer: int, experts: Ids, load: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """`load` plus the pairs among `experts` that have no choice."""
        settled = self.only[layer][experts].ravel()
        settled = settled[settled >= 0]
        return load + np.bincount(settled, minlength=len(load))


def _first_two(candidates: NDArray[np.bool_], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [n, workers]: of each row's candidates the first two in the order."""
    ordered = candidates[:, order]
    kept = np.zeros_like(candidates)
    kept[:, order] = ordered & (ordered.cumsum(axis=1) <= 2)
    return kept


def _least_loaded(live: NDArray[np.bool_], load: NDArray[np.float64]) -> Owners:
    experts, workers = live.shape
    turn = (np.arange(workers) - np.arange(experts)[:, None]) % workers
    cost = np.where(live, load + turn / workers, np.inf)
    owners: Owners = cost.argmin(axis=1).astype(np.int16)
    owners[~live.any(axis=1)] = NOBODY
    return owners
