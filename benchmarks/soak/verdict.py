"""What a soak has shown: growth, drift, leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

GROWTH_MB = 8.0
DRIFT = 0.05


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The system at one moment of the soak.

    at_s: since its begin. tokens: that came so far. rss_mb: resident memory by process.
    blocks: KV blocks in use. others: share of all cores that others took since the last sample.
    """

    at_s: float
    tokens: int
    rss_mb: Mapping[str, float]
    blocks: int
    others: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """growth_mb: of each process, from the second quarter to the last one, scaled to the whole.

    drift: share of its speed that the system lost from the second quarter to the last one.
    left: what should be nothing after the end: violations, sequences, used blocks.
    """

    growth_mb: Mapping[str, float]
    drift: float
    left: tuple[str, ...]

    @property
    def complaints(self) -> list[str]:
        grown = [
            f"{name} grew by {grown:.1f} MB (bar: at most {GROWTH_MB:g})"
            for name, grown in self.growth_mb.items()
            if grown > GROWTH_MB
        ]
        drifted = [f"lost {self.drift:.1%} of its speed (bar: at most {DRIFT:.0%})"]
        return [*self.left, *grown, *(drifted if self.drift > DRIFT else [])]


def judge(samples: Sequence[Sample], left: Sequence[str]) -> Verdict:
    """The first quarter is left out: caches fill and lazy parts load.

    Args:
        samples: at least 8, evenly spaced in time.

    Raises:
        ValueError: fewer samples.
    """
    if len(samples) < 8:
        raise ValueError(f"{len(samples)} samples say nothing; soak for longer")
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    # From the middle of the second quarter to the middle of the last: half of the soak.
    growth = {name: 2 * (_memory(late, name) - _memory(early, name)) for name in samples[0].rss_mb}
    before = speed(samples[quarter], samples[2 * quarter])
    after = speed(samples[-1 - quarter], samples[-1])
    return Verdict(growth_mb=growth, drift=1.0 - after / before, left=tuple(left))


def speed(earlier: Sample, later: Sample) -> float:
    """Tokens a second."""
    return (later.tokens - earlier.tokens) / (later.at_s - earlier.at_s)


def _memory(samples: Sequence[Sample], name: str) -> float:
    return median(sample.rss_mb[name] for sample in samples)
