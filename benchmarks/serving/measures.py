"""Answers summed up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median

from benchmarks.serving.load import Answer

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One run of one side.

    tokens_per_s: all output tokens over the time from the first request to the last token.
    processor_ms: processor time of client and side together, an output token.
    others: share of all cores that went to processes which are no part of the benchmark.
    ttft_ms, itl_ms: percentile -> milliseconds, over requests and over all gaps between tokens.
    """

    tokens_per_s: float
    ttft_ms: dict[int, float]
    itl_ms: dict[int, float]
    others: float = 0.0
    processor_ms: float = 0.0


def measure(
    answers: Sequence[Answer], *, others: float = 0.0, processor_s: float = 0.0
) -> Measures:
    """Tokens that came in one message share the gap before it evenly.

    processor_s: of client and side over the whole run.
    """
    began = min(answer.sent_s for answer in answers)
    ended = max(answer.tokens_s[-1] for answer in answers)
    gaps = [gap for answer in answers for gap in _gaps(answer.tokens_s)]
    tokens = sum(len(answer.tokens_s) for answer in answers)
    return Measures(
        tokens_per_s=tokens / (ended - began),
        processor_ms=1e3 * processor_s / tokens,
        ttft_ms=_percentiles([answer.tokens_s[0] - answer.sent_s for answer in answers]),
        itl_ms=_percentiles(gaps),
        others=others,
    )


def middle(runs: Sequence[Measures]) -> Measures:
    """The median of every figure over several runs."""
    return Measures(
        tokens_per_s=median(run.tokens_per_s for run in runs),
        ttft_ms={p: median(run.ttft_ms[p] for run in runs) for p in PERCENTILES},
        itl_ms={p: median(run.itl_ms[p] for run in runs) for p in PERCENTILES},
        others=median(run.others for run in runs),
        processor_ms=median(run.processor_ms for run in runs),
    )


def _gaps(times: Sequence[float]) -> list[float]:
    messages = [(time, len(list(tokens))) for time, tokens in groupby(times)]
    gaps: list[float] = []
    for (earlier, _), (time, tokens) in pairwise(messages):
        gaps += [(time - earlier) / tokens] * tokens
    return gaps


def _percentiles(values: Sequence[float]) -> dict[int, float]:
    ordered = sorted(values)
    if not ordered:
        return dict.fromkeys(PERCENTILES, 0.0)
    last = len(ordered) - 1
    return {p: 1e3 * ordered[round(last * p / 100)] for p in PERCENTILES}
