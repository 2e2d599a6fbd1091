"""How the load spreads over the experts, as a router sees it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from monitoring.balancedness import balancedness
from monitoring.metrics import RouterMetrics

_MOST_WAITING = 256


class ExpertTokens:
    """Expert-token pairs dispatched since the start; counted when somebody looks, or many wait."""

    def __init__(
        self, layers: Sequence[int], n_routed_experts: int, metrics: RouterMetrics
    ) -> None:
        """Makes the balancedness of each layer a function of the counts, read when scraped."""
        self._counts: NDArray[np.int64] = np.zeros((len(layers), n_routed_experts), np.int64)
        self._waiting: list[tuple[int, NDArray[np.uint16]]] = []
        self._lock = threading.Lock()
        self._layers = tuple(layers)
        self._totals = [metrics.expert_tokens.labels(layer=str(layer)) for layer in layers]
        self._published = [0] * len(layers)
        metrics.deferred.add(self, self._publish)
        for index, layer in enumerate(layers):
            gauge = metrics.balancedness.labels(layer=str(layer))
            gauge.set_function(partial(self.balancedness, index))

    def add(self, layer: int, experts: NDArray[np.uint16]) -> None:
        """Counts a pair for each element, which nobody may change any more; `layer` is a table
        index."""
        with self._lock:
            self._waiting.append((layer, experts))
            if len(self._waiting) > _MOST_WAITING:
                self._count()

    @property
    def counts(self) -> NDArray[np.int64]:
        """[layers, experts], a copy."""
        with self._lock:
            self._count()
            return self._counts.copy()

    def balancedness(self, layer: int) -> float:
        """Of a layer's experts, so far; `layer` is a table index."""
        return balancedness(self.counts[layer].tolist())

    def by_layer(self) -> dict[int, list[int]]:
        """The checkpoint's layer number to the count of each logical expert."""
        counts = self.counts
        return {layer: counts[index].tolist() for index, layer in enumerate(self._layers)}

    def _count(self) -> None:
        waiting, self._waiting = self._waiting, []
        for layer in {layer for layer, _ in waiting}:
            experts = np.concatenate([some.ravel() for of, some in waiting if of == layer])
            self._counts[layer] += np.bincount(experts, minlength=self._counts.shape[1])

    def _publish(self) -> None:
        for index, total in enumerate(self.counts.sum(axis=1).tolist()):
            self._totals[index].inc(total - self._published[index])
            self._published[index] = total
