"""What the engine tells its metrics."""

from __future__ import annotations

from monitoring.metrics import RouterMetrics
from monitoring.request_notes import RequestNotes
from router_service.block_pool import BlockPool
from router_service.outputs import FinishReason
from router_service.scheduler import Scheduler
from router_service.sequence import Sequence
from router_service.step_plan import StepPlan
from router_service.waits import Waits


class Telemetry:
    """Turns events of the engine into observations; times are seconds of one monotonic clock.

    notes: what losses did to requests, for operators.
    """

    def __init__(self, metrics: RouterMetrics) -> None:
        self._metrics = metrics
        self.notes = RequestNotes(metrics.request_notes)
        self._waits = Waits(self.notes)
        self._preemptions = 0
        self._used = metrics.kv_blocks.labels(state="used")
        self._cached = metrics.kv_blocks.labels(state="cached")
        self._free = metrics.kv_blocks.labels(state="free")
        self._ended = {
            reason: metrics.requests.labels(finish_reason=reason.value) for reason in FinishReason
        }

    def scheduled(self, plan: StepPlan, now: float) -> None:
        for planned in plan.segments:
            seq = planned.sequence
            if seq.scheduled_at is None:
                seq.scheduled_at = now
                self._metrics.queue_time.observe(now - seq.arrived_at)
                self._metrics.prompt_tokens.inc(seq.prompt_length)
                self._metrics.prefix_query_tokens.inc(seq.prompt_length)
                self._metrics.prefix_hit_tokens.inc(seq.cached_tokens or 0)

    def stepped(self, plan: StepPlan, seconds: float, now: float) -> None:
        self._metrics.step_seconds.observe(seconds)
        self._metrics.step_rows.observe(plan.rows)
        self._waits.look((planned.sequence for planned in plan.segments), now)

    def generated(self, seq: Sequence, now: float) -> None:
        self._metrics.generated_tokens.inc()
        if seq.last_token_at is None:
            self._metrics.ttft.observe(now - seq.arrived_at)
        else:
            self._metrics.itl.observe(now - seq.last_token_at)
        seq.last_token_at = now

    def ended(self, seq: Sequence, reason: FinishReason, now: float) -> None:
        self._ended[reason].inc()
        self._metrics.e2e.observe(now - seq.arrived_at)
        self._waits.ended(seq, now, failed=reason is FinishReason.ERROR)

    def levels(self, scheduler: Scheduler, pool: BlockPool) -> None:
        """The gauges, and what is counted elsewhere."""
        self._metrics.running.set(scheduler.running)
        self._metrics.waiting.set(scheduler.waiting)
        self._metrics.parked.set(len(scheduler.parked))
        self._used.set(pool.used)
        self._cached.set(pool.cached)
        self._free.set(pool.free)
        self._metrics.preemptions.inc(scheduler.preemptions - self._preemptions)
        self._preemptions = scheduler.preemptions
