"""Real arrivals from a published trace, scaled to a small machine."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.serving.load import ORDINARY, Ask


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How a trace is made smaller; the pattern of arrivals and the mix of lengths stay.

    requests: the first so many. span_s: seconds into which their arrivals are pressed.
    tokens: factor on lengths, which then are kept within [least, most_in] and [least, most_out].
    """

    requests: int = 64
    span_s: float = 60.0
    tokens: float = 0.125
    least: int = 4
    most_in: int = 512
    most_out: int = 128


def replay(trace: Path, scale: Scale, vocab_size: int) -> list[Ask]:
    """Asks with the trace's arrivals and lengths; their tokens are random.

    `trace`: CSV with TIMESTAMP, ContextTokens, GeneratedTokens, or JSON lines with timestamp (ms),
    input_length, output_length.

    Raises:
        ValueError: the trace holds fewer than two requests.
    """
    read = _csv(trace) if trace.suffix == ".csv" else _json(trace)
    rows = [row for row, _ in zip(read, range(scale.requests), strict=False)]
    if len(rows) < 2:
        raise ValueError(f"{trace} holds {len(rows)} requests; a replay needs at least 2")
    first, last = rows[0][0], rows[-1][0]
    press = scale.span_s / max(last - first, 1e-9)
    draw = random.Random(trace.name)
    highest = int(vocab_size * ORDINARY)
    return [
        Ask(
            prompt=tuple(draw.randrange(highest) for _ in range(_fit(given, scale, scale.most_in))),
            max_tokens=_fit(made, scale, scale.most_out),
            at_s=(at - first) * press,
        )
        for at, given, made in rows
    ]


def _fit(tokens: int, scale: Scale, most: int) -> int:
    return min(most, max(scale.least, round(tokens * scale.tokens)))


def _csv(trace: Path) -> Iterator[tuple[float, int, int]]:
    with trace.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            # Python reads microseconds; the trace has another digit.
            at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            yield at, int(row["ContextTokens"]), int(row["GeneratedTokens"])


def _json(trace: Path) -> Iterator[tuple[float, int, int]]:
    with trace.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["timestamp"] / 1e3, row["input_length"], row["output_length"]
