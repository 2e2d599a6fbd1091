"""What a person reads at the end of a run, and the JSON that stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.record import write_record
from benchmarks.serving.compare import BARS, Rounds, Work, ratio
from benchmarks.serving.measures import middle


def table(rounds: Rounds) -> str:
    """Markdown: medians over the rounds, and the spread of tokens/s."""
    lines = [
        "| side | concurrent | tokens/s (least to most) | TTFT p50, p90, p99 ms "
        "| ITL p50, p90, p99 ms | processor ms a token | others |",
        "|---|---|---|---|---|---|---|",
    ]
    for (side, concurrent), runs in rounds.items():
        mid = middle(runs)
        speeds = [run.tokens_per_s for run in runs]
        ttft = ", ".join(f"{value:.1f}" for value in mid.ttft_ms.values())
        itl = ", ".join(f"{value:.2f}" for value in mid.itl_ms.values())
        lines.append(
            f"| {side} | {concurrent} | {mid.tokens_per_s:.1f} "
            f"({min(speeds):.1f} to {max(speeds):.1f}) | {ttft} | {itl} "
            f"| {mid.processor_ms:.2f} | {mid.others:.0%} |"
        )
    return "\n".join(lines)


def bars(rounds: Rounds) -> list[dict[str, object]]:
    """Each bar with the ratio found, for the bars whose sides were measured."""
    found = []
    for bar in BARS:
        got = ratio(rounds, bar.over, bar.under, bar.concurrent)
        if got is not None:
            found.append({**asdict(bar), "ratio": got, "met": got >= bar.least})
    return found


def bar_lines(found: Iterable[dict[str, object]]) -> str:
    return "\n".join(
        f"{bar['over']} / {bar['under']} at {bar['concurrent']}: {bar['ratio']:.2f} "
        f"(bar {bar['least']}) {'met' if bar['met'] else 'MISSED'}"
        for bar in found
    )


def ratio_lines(rounds: Rounds) -> str:
    """The first side against every other, at each concurrency."""
    sides = list(dict.fromkeys(side for side, _ in rounds))
    lines = []
    for other in sides[1:]:
        found = [
            f"{ratio(rounds, sides[0], other, concurrent):.2f} at {concurrent}"
            for side, concurrent in rounds
            if side == other
        ]
        lines.append(f"{sides[0]} / {other}: {', '.join(found)}")
    return "\n".join(lines)


def write_json(
    path: Path,
    rounds: Rounds,
    work: Work,
    settings: dict[str, object],
    load: Sequence[float],
    peers: dict[str, dict[str, str]],
) -> None:
    """`load`: the machine's load average before and after. `peers`: versions by side."""
    write_record(
        path,
        {
            "peers": peers,
            "settings": settings,
            "work": {
                "prompt_tokens": work.prompt_tokens,
                "max_tokens": work.max_tokens,
                "rounds": work.rounds,
            },
            "load": list(load),
            "rounds": [
                {"side": side, "concurrent": concurrent, "runs": [asdict(run) for run in runs]}
                for (side, concurrent), runs in rounds.items()
            ],
            "bars": bars(rounds),
        },
    )
