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

    load: arrivals come so many times as fast as they did.
    skip_s: seconds of the trace that are left out, since a recording may set in slowly.
    seconds: how long requests arrive; the trace's next `load * seconds` seconds are used.
    tokens: factor on lengths, which then are kept within [least, most_in] and [least, most_out].
    """

    load: float = 1.0
    skip_s: float = 0.0
    seconds: float = 20.0
    tokens: float = 0.125
    least: int = 4
    most_in: int = 512
    most_out: int = 128


def replay(trace: Path, scale: Scale, vocab_size: int) -> list[Ask]:
    """Asks with the trace's arrivals and lengths; their tokens are random.

    `trace`: CSV with TIMESTAMP, ContextTokens, GeneratedTokens, or JSON lines with timestamp (ms),
    input_length, output_length.

    Raises:
        ValueError: fewer than two requests arrive within the scale's seconds.
    """
    read = _csv(trace) if trace.suffix == ".csv" else _json(trace)
    begin: float | None = None
    rows: list[tuple[float, int, int]] = []
    for at, given, made in read:
        begin = at + scale.skip_s if begin is None else begin
        arrival = (at - begin) / scale.load
        if arrival >= scale.seconds:
            break
        if arrival >= 0.0:
            rows.append((arrival, given, made))
    if len(rows) < 2:
        raise ValueError(f"{trace}: {len(rows)} requests in {scale.seconds} s; at least 2 needed")
    # Of the load too, so that no prefix of one load's requests is cached when another's come.
    draw = random.Random(f"{trace.name} {scale.load}")
    highest = int(vocab_size * ORDINARY)
    return [
        Ask(
            prompt=tuple(draw.randrange(highest) for _ in range(_fit(given, scale, scale.most_in))),
            max_tokens=_fit(made, scale, scale.most_out),
            at_s=arrival,
        )
        for arrival, given, made in rows
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
