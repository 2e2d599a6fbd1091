"""How long a worker takes, and from when on that is too long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from router_service.dispatch_options import DispatchOptions

SIZES = 32
_ENOUGH = 32
_AT_FIRST = 16
_NOTABLE = 0.1


class LatencyWindow:
    """The recent latencies of one worker, apart by size.

    A size is the bit length of the number of expert-token pairs that the worker had open when
    the message was sent, its own included: that is its queue as far as this router knows it.

    A worker that has become slow would get ever more time if only its own latencies counted. So
    it gets no more than what holds for the others: workers whose answers may stand in for each
    other are alike, or their bits would differ.

    Observing costs a few hundred nanoseconds; limits are renewed at every 32nd answer of a size,
    by the worse of the last two such lots.

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
        self._newest: list[list[float]] = [[] for _ in range(SIZES)]
        self._enough = [_AT_FIRST] * SIZES
        self._before = [0.0] * SIZES
        self._late: list[float | None] = [None] * SIZES
        self._known = [False] * SIZES
        self._median: list[float | None] = [None] * SIZES

    def add(self, size: int, seconds: float) -> bool:
        """Takes an answer's latency; true if the worker has turned out to be slow by it."""
        newest = self._newest[size]
        newest.append(seconds)
        if len(newest) < self._enough[size]:
            return False
        self._newest[size] = []
        self._enough[size] = _ENOUGH
        newest.sort()
        return self._renew(size, newest)

    def typical(self, size: int) -> float | None:
        """Seconds that the newest answers took, as a median; None as long as they are few."""
        return self._median[size]

    def _renew(self, size: int, ordered: list[float]) -> bool:
        options = self._options
        quantile = _quantile(ordered, options.late_quantile)
        self._late[size] = own = max(quantile, self._before[size])
        self._before[size] = quantile
        self._median[size] = median = _quantile(ordered, 0.5)
        peers = [peer for peer in self._peers() if peer is not self]
        others = [late for peer in peers if (late := peer._late[size]) is not None]
        usual = min(own, _middle(others)) if others else own
        limit = self._bounded(options.late_factor * usual)
        if not self._known[size] or abs(limit - self.limits[size]) > _NOTABLE * limit:
            self._known[size] = True
            self._set_limit(size, limit)
        hedge = _quantile(ordered, options.hedge_quantile)
        self.hedges[size] = min(hedge, usual, self.limits[size])
        return is_slow(median, [peer.typical(size) for peer in peers], options)

    def _set_limit(self, size: int, limit: float) -> None:
        """Twice the work takes at most twice as long: so much is known of other sizes."""
        self.limits[size] = limit
        if not any(self._known[:size]):
            self._presume(range(size), limit, 1)
        larger = range(size + 1, SIZES)
        end = next((other for other in larger if self._known[other]), SIZES)
        self._presume(range(size + 1, end), limit, 2)

    def _presume(self, sizes: Iterable[int], limit: float, growth: int) -> None:
        for other in sizes:
            limit = self._bounded(limit * growth)
            self.limits[other] = self.hedges[other] = limit

    def _bounded(self, seconds: float) -> float:
        return min(max(seconds, self._options.late_min_s), self._options.late_max_s)


def is_slow(seconds: float, others: Iterable[float | None], options: DispatchOptions) -> bool:
    """Whether a worker that takes so long is to be avoided, as others are so much faster."""
    known = [other for other in others if other is not None]
    if not known:
        return False
    usual = _middle(known)
    return seconds > max(options.slow_factor * usual, usual + options.slow_min_s)


def _middle(values: list[float]) -> float:
    """The lower median."""
    return sorted(values)[(len(values) - 1) // 2]


def _quantile(ordered: Sequence[float], quantile: float) -> float:
    return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)]
