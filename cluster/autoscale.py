"""How many expert workers their load asks for.

The load of a worker is the part of its time that its arithmetic takes. Their number follows in
proportion, up at once and down after a while, as Kubernetes' horizontal autoscaler does it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

# Deviations from the target that are not worth moving experts for.
_TOLERANCE = 0.1


@dataclass(eq=False, kw_only=True)
class Autoscaler:
    """least, most: bounds of the number of workers. target: load that each should have, 0 to 1.
    down_after_s: so long fewer must have been enough."""

    least: int
    most: int
    target: float
    down_after_s: float
    _last: tuple[float, Mapping[str, float]] | None = None
    _past: deque[tuple[float, int]] = field(default_factory=deque)

    def wanted(self, now: float, busy: Mapping[str, float], workers: int) -> int:
        """The number of workers that there should be.

        Args:
            busy: by worker process, seconds of arithmetic since its start.
            workers: how many there are to be at the moment.
        """
        last, self._last = self._last, (now, dict(busy))
        if last is None or now <= last[0]:
            return self._clamp(workers)
        before, span = last[1], now - last[0]
        loads = [
            max(0.0, (seconds - before[process]) / span)
            for process, seconds in busy.items()
            if process in before
        ]
        if not loads:
            return self._clamp(workers)
        ratio = sum(loads) / len(loads) / self.target
        enough = workers
        if abs(ratio - 1.0) > _TOLERANCE:
            enough = self._clamp(math.ceil(len(loads) * ratio - 1e-9))
        self._past.append((now, enough))
        while now - self._past[0][0] > self.down_after_s:
            self._past.popleft()
        known_for = now - self._past[0][0]
        if enough >= workers or known_for < self.down_after_s * 0.9:
            return self._clamp(max(enough, workers))
        return self._clamp(min(workers, max(number for _, number in self._past)))

    def _clamp(self, workers: int) -> int:
        return min(self.most, max(self.least, workers))
