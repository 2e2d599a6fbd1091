"""How the load spreads over the experts, as a router sees it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from monitoring.balancedness import balancedness
from monitoring.metrics import RouterMetrics


class ExpertTokens:
    """Expert-token pairs dispatched since the start, [layers, experts] int64."""

    def __init__(
        self, layers: Sequence[int], n_routed_experts: int, metrics: RouterMetrics
    ) -> None:
        """Makes the balancedness of each layer a function of the counts, read when scraped."""
        self.counts: NDArray[np.int64] = np.zeros((len(layers), n_routed_experts), np.int64)
        self._layers = tuple(layers)
        self._totals = [metrics.expert_tokens.labels(layer=str(layer)) for layer in layers]
        for index, layer in enumerate(layers):
            gauge = metrics.balancedness.labels(layer=str(layer))
            gauge.set_function(partial(self.balancedness, index))

    def add(self, layer: int, experts: NDArray[np.int64]) -> None:
        """Counts a pair for each element; `layer` is a table index."""
        flat = experts.ravel()
        self.counts[layer] += np.bincount(flat, minlength=self.counts.shape[1])
        self._totals[layer].inc(len(flat))

    def balancedness(self, layer: int) -> float:
        """Of a layer's experts, so far; `layer` is a table index."""
        return balancedness(self.counts[layer].tolist())

    def by_layer(self) -> dict[int, list[int]]:
        """The checkpoint's layer number to the count of each logical expert."""
        return {layer: self.counts[index].tolist() for index, layer in enumerate(self._layers)}
