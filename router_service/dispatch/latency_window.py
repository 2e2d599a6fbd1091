"""How long a worker takes, and from when on that is too long."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from router_service.dispatch_options import DispatchOptions

SIZES = 40
_KEPT = 128
_RENEWED_AFTER = 32


class LatencyWindow:
    """The recent latencies of one worker, apart by size.

    A size is the bit length of the number of expert-token pairs that the worker had open when
    the message was sent, its own included: that is its queue as far as this router knows it.

    A worker that has become slow would get ever more time if only its own latencies counted. So
    it gets no more than what holds for the others: workers whose answers may stand in for each
    other are alike, or their bits would differ.

    Observing costs a few hundred nanoseconds; the rest is done at every 32nd answer of a size.

    limits: seconds after which a message of each size is late.
    hedges: seconds after which a message of each size may be sent to a second owner.
    canary_s: what the newest canary took; None before the first.
    """

    def __init__(
        self, options: DispatchOptions, peers: Callable[[], Iterable[LatencyWindow]]
    ) -> None:
        """`peers`: the windows of all workers, this one among them or not."""
        self.limits = [options.late_max_s] * SIZES
        self.hedges = [options.late_max_s] * SIZES
        self.canary_s: float | None = None
        self._options = options
        self._peers = peers
        self._kept = [deque[float](maxlen=_KEPT) for _ in range(SIZES)]
        self._until = [_RENEWED_AFTER // 2] * SIZES
        self._late: list[float | None] = [None] * SIZES
        self._median: list[float | None] = [None] * SIZES

    def add(self, size: int, seconds: float) -> bool:
        """Takes an answer's latency; true if the worker has turned out to be slow by it."""
        self._kept[size].append(seconds)
        self._until[size] -= 1
        if self._until[size]:
            return False
        self._until[size] = _RENEWED_AFTER
        return self._renew(size)

    def typical(self, size: int) -> float | None:
        """Seconds that the newest answers took, as a median; None as long as they are few."""
        return self._median[size]

    def _renew(self, size: int) -> bool:
        options, kept = self._options, self._kept[size]
        ordered = sorted(kept)
        self._late[size] = own = _quantile(ordered, options.late_quantile)
        self._median[size] = median = statistics.median_low(list(kept)[-_RENEWED_AFTER:])
        peers = [peer for peer in self._peers() if peer is not self]
        others = [late for peer in peers if (late := peer._late[size]) is not None]
        most = statistics.median_low([own, *others])
        late = options.late_factor * min(own, most)
        self.limits[size] = min(max(late, options.late_min_s), options.late_max_s)
        self.hedges[size] = min(_quantile(ordered, options.hedge_quantile), most, self.limits[size])
        return is_slow(median, [peer.typical(size) for peer in peers], options)


def is_slow(seconds: float, others: Iterable[float | None], options: DispatchOptions) -> bool:
    """Whether a worker that takes so long is to be avoided, as others are so much faster."""
    known = [other for other in others if other is not None]
    if not known:
        return False
    usual = statistics.median_low(known)
    return seconds > max(options.slow_factor * usual, usual + options.slow_min_s)


def _quantile(ordered: Sequence[float], quantile: float) -> float:
    return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]
