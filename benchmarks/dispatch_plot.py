"""The plot of a written report: `python -m benchmarks.dispatch_plot report.json plot.png`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def plot(lines: Sequence[Mapping[str, Any]], hardware: Mapping[str, object], picture: Path) -> None:
    """A panel a payload, a curve a side: round trips over the number of workers."""
    sizes = sorted({line["payload_bytes"] for line in lines})
    figure = Figure(figsize=(4.5 * len(sizes), 4.2), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        of_size = [line for line in lines if line["payload_bytes"] == size]
        workers = [line["workers"] for line in of_size]
        for side in of_size[0]["sides"]:
            round_ms = [line["sides"][side]["round_ms"] for line in of_size]
            axes.plot(workers, round_ms, marker="o", label=side)
        axes.set_xticks(workers)
        axes.set_xlabel("workers")
        axes.set_title(f"{size / 1024:.0f} KiB to each, round trip in ms")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(f"{hardware['cores']} cores, {hardware['processor']}", fontsize=10)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    plot(report["lines"], report["hardware"], Path(sys.argv[2]))
