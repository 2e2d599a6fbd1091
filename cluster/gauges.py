"""The fleet as metrics."""

from __future__ import annotations

from cluster.fleet import Fleet, Phase, Role
from cluster.signals import Note
from monitoring.metrics import ControllerMetrics


class Gauges:
    """Keeps the controller's metrics at what is so."""

    def __init__(self, metrics: ControllerMetrics) -> None:
        self._metrics = metrics

    def show(self, before: Fleet, after: Fleet) -> None:
        """Sets what has changed."""
        if before is after:
            return
        metrics = self._metrics
        for name, member in after.members.items():
            old = before.members.get(name)
            if old is not None and member.failures > old.failures:
                metrics.restarts.labels(role=str(member.role)).inc()
        for role, gauge in ((Role.EXPERT, metrics.workers), (Role.ROUTER, metrics.routers)):
            for phase in Phase:
                gauge.labels(state=str(phase)).set(sum(m.phase is phase for m in after.of(role)))
        metrics.wanted.set(after.workers)
        metrics.spares.set(sum(m.spare and m.phase is Phase.READY for m in after.of(Role.EXPERT)))
        metrics.changing.set(after.change is not None)
        epoch = after.placement.epoch
        metrics.epoch.labels(part="term").set(epoch.term)
        metrics.epoch.labels(part="counter").set(epoch.counter)

    def count(self, note: Note) -> None:
        """Counts an event."""
        metrics = self._metrics
        metrics.events.labels(kind=note.kind).inc()
        if note.kind == "epoch_published":
            metrics.without_owner.set(float(note.facts["missing"]))
        elif note.kind == "experts_recovered" and note.seconds is not None:
            metrics.recovery_seconds.observe(note.seconds)
        elif note.kind == "change_done" and note.seconds is not None:
            reason = str(note.facts["reason"])
            metrics.change_seconds.labels(reason=reason).observe(note.seconds)
            metrics.copies_loaded.labels(reason=reason).inc(float(note.facts["copies"]))
