"""How many tokens each expert has computed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_WAITING = 256


class TokenCounts:
    """Expert-token pairs by layer and logical expert since the worker's start; thread-safe.

    Counted when somebody looks, or when many wait.
    """

    def __init__(self, layers: Sequence[int], n_routed_experts: int) -> None:
        self._counts = {layer: np.zeros(n_routed_experts, np.int64) for layer in layers}
        self._waiting: list[tuple[int, NDArray[np.uint16]]] = []
        self._lock = threading.Lock()

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self._counts)

    def add(self, layer: int, experts: NDArray[np.uint16]) -> None:
        """Counts one token for each element; `experts` are logical ids of `layer`."""
        with self._lock:
            # A copy, since they are a view that keeps a whole message in memory.
            self._waiting.append((layer, experts.copy()))
            if len(self._waiting) > _MOST_WAITING:
                self._count()

    @property
    def total(self) -> int:
        return sum(self.totals().values())

    def totals(self) -> dict[int, int]:
        """Layer to the count of all its experts."""
        with self._lock:
            self._count()
            return {layer: int(counts.sum()) for layer, counts in self._counts.items()}

    def by_layer(self) -> dict[int, list[int]]:
        """Layer to the count of each logical expert."""
        with self._lock:
            self._count()
            return {layer: counts.tolist() for layer, counts in self._counts.items()}

    def _count(self) -> None:
        waiting, self._waiting = self._waiting, []
        for layer in {layer for layer, _ in waiting}:
            experts = np.concatenate([some for of, some in waiting if of == layer])
            counts = self._counts[layer]
            counts += np.bincount(experts, minlength=len(counts))
