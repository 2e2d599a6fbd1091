"""What a router observes of one worker."""

from __future__ import annotations

from typing import Any

from monitoring.deferred import DeferredCount, DeferredTimes
from monitoring.metrics import RouterMetrics, set_state
from router_service.dispatch.breaker import Fault, State
from router_service.dispatch.canaries import Verdict

_RECENT = 0.05


class LinkStats:
    """Latency, bytes, errors and failovers of one worker, also as metrics."""

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
        self.failovers: dict[str, int] = {}
        self.stragglers = 0
        self.late_answers = 0
        self.hedges = {"sent": 0, "won": 0}
        self.canaries: dict[str, int] = {}
        self._state: State | None = None
        self._carriers: set[str] = set()
        # All there from the start: what first appears at 1 shows no increase.
        for fault in Fault:
            metrics.failovers.labels(worker=worker_id, reason=fault.value)
        for verdict in Verdict:
            metrics.canaries.labels(worker=worker_id, verdict=verdict.value)
        metrics.stragglers.labels(worker=worker_id)
        metrics.late_answers.labels(worker=worker_id)

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

    def late(self) -> None:
        """A message was not answered in time."""
        self.stragglers += 1
        self._metrics.stragglers.labels(worker=self._worker_id).inc()

    def failed_over(self, fault: Fault) -> None:
        """The rows of a message are asked of others, because of this worker."""
        self.failovers[fault] = self.failovers.get(fault, 0) + 1
        self._metrics.failovers.labels(worker=self._worker_id, reason=fault.value).inc()

    def discarded(self) -> None:
        """An answer came when others had answered already, or nobody waited any more."""
        self.late_answers += 1
        self._metrics.late_answers.labels(worker=self._worker_id).inc()

    def hedge_sent(self) -> None:
        self._hedged("sent")

    def hedge_won(self) -> None:
        self._hedged("won")

    def canary(self, verdict: Verdict) -> None:
        self.canaries[verdict] = self.canaries.get(verdict, 0) + 1
        self._metrics.canaries.labels(worker=self._worker_id, verdict=verdict.value).inc()

    def breaker(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            set_state(self._metrics.breaker, State, state, worker=self._worker_id)

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
        for fault in Fault:
            self._metrics.failovers.remove(self._worker_id, fault.value)
        for verdict in Verdict:
            self._metrics.canaries.remove(self._worker_id, verdict.value)
        for outcome, number in self.hedges.items():
            if number:
                self._metrics.hedges.remove(self._worker_id, outcome)
        self._metrics.stragglers.remove(self._worker_id)
        self._metrics.late_answers.remove(self._worker_id)
        if self._state is not None:
            for state in State:
                self._metrics.breaker.remove(self._worker_id, state.value)

    def snapshot(self) -> dict[str, Any]:
        return {
            "messages": self.messages,
            "bytes_sent": self._sent.value,
            "bytes_received": self._received.value,
            "recent_ms": round(1000 * self.recent_seconds, 3),
            "errors": dict(self.errors),
            "failovers": dict(self.failovers),
            "stragglers": self.stragglers,
            "late_answers": self.late_answers,
            "hedges": dict(self.hedges),
            "canaries": dict(self.canaries),
        }

    def _hedged(self, outcome: str) -> None:
        self.hedges[outcome] += 1
        self._metrics.hedges.labels(worker=self._worker_id, outcome=outcome).inc()
