"""What a router observes of one worker."""

from __future__ import annotations

from typing import Any

from monitoring.deferred import DeferredCount, DeferredTimes
from monitoring.metrics import RouterMetrics

_RECENT = 0.05


class LinkStats:
    """Latency, bytes and errors of one worker, also as metrics."""

    def __init__(self, worker_id: str, metrics: RouterMetrics) -> None:
        self._worker_id = worker_id
        self._metrics = metrics
        deferred, size = metrics.deferred, metrics.dispatch_bytes
        self._seconds = DeferredTimes(deferred, metrics.dispatch_seconds.labels(worker=worker_id))
        self._sent = DeferredCount(deferred, size.labels(worker=worker_id, direction="sent"))
        self._received = DeferredCount(
            deferred, size.labels(worker=worker_id, direction="received")
        )
        self.messages = 0
        self.recent_seconds = 0.0
        self.errors: dict[str, int] = {}
        self._carriers: set[str] = set()

    def sent(self, size: int) -> None:
        self.messages += 1
        self._sent.value += size

    def received(self, size: int, seconds: float) -> None:
        """An answer of `size` bytes came `seconds` after its request was handed over."""
        self._received.value += size
        self.recent_seconds += _RECENT * (seconds - self.recent_seconds)
        self._seconds.observe(seconds)

    def carried_by(self, carrier: str) -> None:
        """Messages go by this carrier from now on."""
        self._carriers.add(carrier)
        for name in self._carriers:
            gauge = self._metrics.dispatch_carrier.labels(worker=self._worker_id, carrier=name)
            gauge.set(float(name == carrier))

    def failed(self, code: str) -> None:
        self.errors[code] = self.errors.get(code, 0) + 1
        self._metrics.dispatch_errors.labels(worker=self._worker_id, code=code).inc()

    def forget(self) -> None:
        """Takes the worker's series out of the metrics; to be called once nothing is counted."""
        for counted in (self._seconds, self._sent, self._received):
            self._metrics.deferred.remove(counted)
        self._metrics.dispatch_seconds.remove(self._worker_id)
        for direction in ("sent", "received"):
            self._metrics.dispatch_bytes.remove(self._worker_id, direction)
        for carrier in self._carriers:
            self._metrics.dispatch_carrier.remove(self._worker_id, carrier)
        for code in self.errors:
            self._metrics.dispatch_errors.remove(self._worker_id, code)

    def snapshot(self) -> dict[str, Any]:
        return {
            "messages": self.messages,
            "bytes_sent": self._sent.value,
            "bytes_received": self._received.value,
            "recent_ms": round(1000 * self.recent_seconds, 3),
            "errors": dict(self.errors),
        }
