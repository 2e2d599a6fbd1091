"""Which workers can be asked for which expert now, and the choice between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOBODY = -1
_SEVERAL = -2

Owners = NDArray[np.int16]


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveTable:
    """A snapshot; made anew whenever a worker comes, goes or changes what it holds.

    live: bool [layers, experts, workers].
    only: int16 [layers, experts], the one live owner, NOBODY, or _SEVERAL.
    replicated: bool [layers], whether the layer has an expert with several live owners.
    """

    live: NDArray[np.bool_]
    only: Owners
    replicated: NDArray[np.bool_]

    @classmethod
    def of(cls, live: NDArray[np.bool_]) -> LiveTable:
        if live.shape[2] == 0:
            only = np.full(live.shape[:2], NOBODY, np.int16)
            return cls(live=live, only=only, replicated=np.zeros(live.shape[0], np.bool_))
        number = live.sum(axis=2)
        only = live.argmax(axis=2).astype(np.int16)
        only[number == 0] = NOBODY
        only[number > 1] = _SEVERAL
        return cls(live=live, only=only, replicated=(number > 1).any(axis=1))

    def is_live(self, layer: int, expert: int) -> bool:
        """`layer` is an index into the table here and below, not the checkpoint's number."""
        return bool(self.only[layer, expert] != NOBODY)

    def choose(
        self,
        layer: int,
        experts: NDArray[np.int64],
        load: NDArray[np.float64],
        without: NDArray[np.bool_] | None = None,
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

        Returns: int16 [rows, top_k], worker index or NOBODY.
        """
        if without is None and not self.replicated[layer]:
            return np.take(self.only[layer], experts)
        live = self.live[layer] if without is None else self.live[layer] & ~without
        covering = live[experts].all(axis=1)
        covered = covering.any(axis=1)
        owners = np.empty(experts.shape, np.int16)
        best = np.where(covering[covered], load, np.inf).argmin(axis=1)
        owners[covered] = best[:, None]
        if not covered.all():
            rest = experts[~covered]
            owners[~covered] = _least_loaded(live, self._base_load(layer, rest, load))[rest]
        return owners

    def _base_load(
        self, layer: int, experts: NDArray[np.int64], load: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """`load` plus the pairs among `experts` that have no choice."""
        settled = self.only[layer][experts].ravel()
        settled = settled[settled >= 0]
        return load + np.bincount(settled, minlength=len(load))


def _least_loaded(live: NDArray[np.bool_], load: NDArray[np.float64]) -> Owners:
    experts, workers = live.shape
    turn = (np.arange(workers) - np.arange(experts)[:, None]) % workers
    cost = np.where(live, load + turn / workers, np.inf)
    owners: Owners = cost.argmin(axis=1).astype(np.int16)
    owners[~live.any(axis=1)] = NOBODY
    return owners
