"""Whole things divided in proportion."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def divide(
    total: int, weights: Sequence[float], caps: Sequence[int | None], least: int
) -> list[int] | None:
    """Counts that sum to `total` and keep the largest count / weight as small as it can be.

    Each count is at least `least` and at most its cap (None: no cap). None when that cannot be.
    Equal quotients go to the earlier place, so equal weights differ by one at most.

    >>> divide(384, [1, 1, 1], [None, None, None], least=1)
    [128, 128, 128]
    >>> divide(7, [1, 1, 1], [None, None, None], least=1)
    [3, 2, 2]
    >>> divide(10, [3, 1, 1], [4, None, None], least=1)
    [4, 3, 3]
    >>> divide(10, [1, 1], [4, 4], least=0) is None
    True
    """
    counts = [least] * len(weights)
    left = total - least * len(weights)
    if left < 0 or any(cap is not None and cap < least for cap in caps):
        return None
    queue = [((least + 1) / weight, place) for place, weight in enumerate(weights)]
    heapq.heapify(queue)
    while left:
        if not queue:
            return None
        _, place = heapq.heappop(queue)
        cap = caps[place]
        if cap is not None and counts[place] >= cap:
            continue
        counts[place] += 1
        left -= 1
        heapq.heappush(queue, ((counts[place] + 1) / weights[place], place))
    return counts
