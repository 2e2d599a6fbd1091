"""What a router observes of one worker."""

from __future__ import annotations

from typing import Any

from monitoring.metrics import RouterMetrics

_RECENT = 0.05


class LinkStats:
    """Latency, bytes and errors of one worker, also as metrics."""

    def __init__(self, worker_id: str, metrics: RouterMetrics) -> None:
        self._worker_id = worker_id
        self._metrics = metrics
        # Looking a labelled series up costs more than counting on it.
        self._seconds = metrics.dispatch_seconds.labels(worker=worker_id)
        self._sent = metrics.dispatch_bytes.labels(worker=worker_id, direction="sent")
        self._received = metrics.dispatch_bytes.labels(worker=worker_id, direction="received")
        self.messages = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.recent_seconds = 0.0
        self.errors: dict[str, int] = {}

    def sent(self, size: int) -> None:
        self.messages += 1
        self.bytes_sent += size
        self._sent.inc(size)

    def received(self, size: int, seconds: float) -> None:
        """An answer of `size` bytes came `seconds` after its request was handed over."""
        self.bytes_received += size
        self.recent_seconds += _RECENT * (seconds - self.recent_seconds)
        self._received.inc(size)
        self._seconds.observe(seconds)

    def failed(self, code: str) -> None:
        self.errors[code] = self.errors.get(code, 0) + 1
        self._metrics.dispatch_errors.labels(worker=self._worker_id, code=code).inc()

    def forget(self) -> None:
        """Takes the worker's series out of the metrics; to be called once nothing is counted."""
        self._metrics.dispatch_seconds.remove(self._worker_id)
        for direction in ("sent", "received"):
            self._metrics.dispatch_bytes.remove(self._worker_id, direction)
        for code in self.errors:
            self._metrics.dispatch_errors.remove(self._worker_id, code)

    def snapshot(self) -> dict[str, Any]:
        return {
            "messages": self.messages,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "recent_ms": round(1000 * self.recent_seconds, 3),
            "errors": dict(self.errors),
        }
