"""What clients saw before, during and after each loss of a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.failover.gaps import Gap, around, between, percentile

BEFORE_S = 5.0
DURING_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Seconds on the clients' clock.

    killed: a worker was. rested: every process was back. ended: of the calm after that.
    away_s: for which some expert had no live copy.
    """

    killed: float
    rested: float
    ended: float
    away_s: float = 0.0

    @property
    def phases(self) -> dict[str, tuple[float, float]]:
        during = self.killed + DURING_S
        return {
            "before": (self.killed - BEFORE_S, self.killed),
            "during": (self.killed, during),
            "restarting": (during, max(during, self.rested)),
            "after": (max(during, self.rested), self.ended),
        }


@dataclass(frozen=True, kw_only=True)
class Seen:
    """tokens_per_s; gaps between tokens in ms."""

    tokens_per_s: float
    p50_ms: float
    p99_ms: float
    longest_ms: float


def seen(gaps: Sequence[Gap], spans: Sequence[tuple[float, float]]) -> Seen:
    """Over several spans of time together; a token counts when it came."""
    chosen = [gap for begun, ended in spans for gap in between(gaps, begun, ended)]
    seconds = sum(ended - begun for begun, ended in spans)
    p50, p99, most = (1e3 * percentile(chosen, part) for part in (0.5, 0.99, 1.0))
    return Seen(
        tokens_per_s=len(chosen) / seconds if seconds else 0.0,
        p50_ms=p50,
        p99_ms=p99,
        longest_ms=most,
    )


def account(gaps: Sequence[Gap], losses: Sequence[Loss]) -> dict[str, dict[str, float]]:
    """Phase to what was seen in it, over all losses; and of the gaps that contain one."""
    names = list(losses[0].phases)
    found = {name: asdict(seen(gaps, [loss.phases[name] for loss in losses])) for name in names}
    held = around(gaps, [loss.killed for loss in losses])
    found["gaps with a kill"] = {
        "number": float(len(held)),
        **{
            f"{name}_ms": 1e3 * percentile(held, part)
            for name, part in (("p50", 0.5), ("p99", 0.99), ("longest", 1.0))
        },
    }
    return found


def rate(
    gaps: Sequence[Gap], losses: Sequence[Loss], width_s: float, least_s: float, most_s: float
) -> tuple[list[float], list[float]]:
    """Moments relative to the kill, and tokens/s around them, a mean over all losses."""
    bins = round((most_s - least_s) / width_s)
    counts = [0] * bins
    for loss in losses:
        for gap in gaps:
            place = int((gap.ended - loss.killed - least_s) // width_s)
            if 0 <= place < bins:
                counts[place] += 1
    moments = [least_s + (place + 0.5) * width_s for place in range(bins)]
    return moments, [count / width_s / len(losses) for count in counts]
