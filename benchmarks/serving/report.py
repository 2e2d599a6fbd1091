"""What a person reads at the end of a run, and the JSON that stays."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks.serving.compare import BARS, Rounds, Work, ratio
from benchmarks.serving.measures import middle

_PACKAGES = ("torch", "grpcio", "ray", "transformers", "numpy", "numba")


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
            f"| {side} | {concurrent or 'replay'} | {mid.tokens_per_s:.1f} "
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
            f"{ratio(rounds, sides[0], other, concurrent):.2f} at {concurrent or 'replay'}"
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
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([*("python", "-m", "benchmarks.bench_serving"), *sys.argv[1:]]),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **_versions(), "peers": peers},
        "settings": settings,
        "work": {
            "prompt_tokens": work.prompt_tokens,
            "max_tokens": work.max_tokens,
            "rounds": work.rounds,
            "replayed_requests": len(work.replay),
        },
        "load": list(load),
        "rounds": [
            {"side": side, "concurrent": concurrent, "runs": [asdict(run) for run in runs]}
            for (side, concurrent), runs in rounds.items()
        ],
        "bars": bars(rounds),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")


def hardware() -> dict[str, object]:
    """Of this machine, without its name."""
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "system": platform.system(),
        "avx512": " avx512f " in (_first("/proc/cpuinfo", "flags") or ""),
    }


def _first(file: str, key: str) -> str | None:
    path = Path(file)
    if not path.is_file():
        return None
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
