"""Experts' loads over a sliding window, from counters that only grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from cluster.planner.crew import Loads

Tokens = Mapping[int, Sequence[int]]
"""Layer to the tokens of each logical expert since a router's start."""


class LoadWindow:
    """What all routers together asked of each expert within the last `window_s` seconds."""

    def __init__(self, window_s: float, layers: Sequence[int], experts: int) -> None:
        self._window_s = window_s
        self._layers = sorted(layers)
        self._experts = experts
        self._last: dict[str, Loads] = {}
        self._parts: deque[tuple[float, Loads]] = deque()

    def take(self, now: float, counters: Mapping[str, Tokens]) -> Loads | None:
        """The window's load, float64 [layers, experts]; None if nothing was asked in it.

        Args:
            counters: by the router's process, so that one that starts again begins at nothing;
                what is not this model's is left out.
        """
        part = np.zeros((len(self._layers), self._experts))
        for process, tokens in counters.items():
            rows = [tokens.get(layer, ()) for layer in self._layers]
            if any(len(row) != self._experts for row in rows):
                continue
            total = np.array(rows, np.float64)
            part += total - self._last.get(process, 0.0)
            self._last[process] = total
        self._last = {process: self._last[process] for process in counters if process in self._last}
        self._parts.append((now, part))
        while self._parts and now - self._parts[0][0] > self._window_s:
            self._parts.popleft()
        load: Loads = np.sum([part for _, part in self._parts], axis=0)
        return load if load.any() else None
