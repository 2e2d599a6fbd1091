"""How long a round takes when several go round the same stations."""

from __future__ import annotations

from collections.abc import Sequence


def round_seconds(demands: Sequence[float], delay: float, customers: int) -> float:
    """The mean time that each of `customers` needs for one round through all stations.

    Mean value analysis of a closed network: a customer that comes to a station finds there, on
    average, the queue that there would be without it,

        time(k, n) = demand(k) * (1 + queue(k, n - 1))
        queue(k, n) = n * time(k, n) / (delay + sum of all times)

    so one customer needs all demands, and many as long as the busiest station needs for all.

    Args:
        demands: seconds that a round keeps each station busy.
        delay: seconds of a round in which it waits for nobody's station.

    >>> round_seconds([2.0, 1.0], 0.5, 1)
    3.5
    >>> round(round_seconds([2.0, 1.0], 0.0, 2), 3)
    4.667
    >>> round(round_seconds([2.0, 1.0], 0.0, 50) / 50, 3)
    2.0
    """
    queues = [0.0] * len(demands)
    total = delay + sum(demands)
    for number in range(1, customers + 1):
        times = [demand * (1.0 + queue) for demand, queue in zip(demands, queues, strict=True)]
        total = delay + sum(times)
        if total == 0.0:
            return 0.0
        queues = [number * time / total for time in times]
    return total
