"""How many tokens each expert has computed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class TokenCounts:
    """Expert-token pairs by layer and logical expert since the worker's start; thread-safe."""

    def __init__(self, layers: Sequence[int], n_routed_experts: int) -> None:
        self._counts = {layer: np.zeros(n_routed_experts, np.int64) for layer in layers}
        self._lock = threading.Lock()

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self._counts)

    def add(self, layer: int, experts: NDArray[np.uint16]) -> None:
        """Counts one token for each element; `experts` are logical ids of `layer`."""
        counts = self._counts[layer]
        new = np.bincount(experts, minlength=len(counts))
        with self._lock:
            counts += new

    @property
    def total(self) -> int:
        with self._lock:
            return int(sum(counts.sum() for counts in self._counts.values()))

    def by_layer(self) -> dict[int, list[int]]:
        """Layer to the count of each logical expert."""
        with self._lock:
            return {layer: counts.tolist() for layer, counts in self._counts.items()}
