"""How long clients waited between tokens."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Between a token and the next of its stream; seconds on the clients' clock."""

    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


def gaps_of(times: Iterable[Sequence[float]]) -> list[Gap]:
    """Of streams, each the moments at which its tokens came."""
    return [Gap(begun=a, ended=b) for stream in times for a, b in pairwise(stream)]


def around(gaps: Iterable[Gap], moments: Sequence[float]) -> list[Gap]:
    """Those that contain at least one of the moments, which ascend."""
    return [
        gap
        for gap in gaps
        if (place := bisect.bisect_left(moments, gap.begun)) < len(moments)
        and moments[place] <= gap.ended
    ]


def between(gaps: Iterable[Gap], begun: float, ended: float) -> list[Gap]:
    """Those that ended within the time."""
    return [gap for gap in gaps if begun <= gap.ended <= ended]


def percentile(gaps: Iterable[Gap], part: float) -> float:
    """Seconds that so large a part of the gaps is not longer than; NaN where there is none.

    >>> percentile([Gap(begun=0, ended=n) for n in range(1, 101)], 0.99)
    99
    """
    ordered = sorted(gap.seconds for gap in gaps)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def figures(gaps: Sequence[Gap]) -> str:
    """For a person: number, p50, p99 and the longest, in ms."""
    if not gaps:
        return "no gaps"
    p50, p99, most = (1000 * percentile(gaps, part) for part in (0.5, 0.99, 1.0))
    return f"{len(gaps)} gaps, p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {most:.0f} ms"
