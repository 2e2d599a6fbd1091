"""The plot of a written report: `python -m benchmarks.serving.plot report.json plot.png`."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from benchmarks.record import machine, read_record

_PANELS = (
    ("tokens/s", lambda run: run["tokens_per_s"]),
    ("median TTFT, ms", lambda run: run["ttft_ms"]["50"]),
    ("median ITL, ms", lambda run: run["itl_ms"]["50"]),
)


def plot(report: Path, picture: Path) -> None:
    """A panel a measure, a group of bars a concurrency, a bar a side: medians over the rounds."""
    read = read_record(report)
    rounds = {(entry["side"], entry["concurrent"]): entry["runs"] for entry in read["rounds"]}
    sides = list(dict.fromkeys(side for side, _ in rounds))
    levels = list(dict.fromkeys(level for _, level in rounds))
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for axes, (title, value) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for place, side in enumerate(sides):
            known = [number for number, level in enumerate(levels) if (side, level) in rounds]
            heights = [median(map(value, rounds[side, levels[number]])) for number in known]
            width = 0.8 / len(sides)
            left = [number - 0.4 + (place + 0.5) * width for number in known]
            axes.bar(left, heights, width, label=side)
        axes.set_xticks(range(len(levels)), list(map(str, levels)))
        axes.set_xlabel("concurrent requests")
        axes.set_title(title)
        axes.set_yscale("log")
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(
        f"{read['work']['prompt_tokens']} tokens in, {read['work']['max_tokens']} out; "
        f"{machine(read)}",
        fontsize=10,
    )
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    plot(Path(sys.argv[1]), Path(sys.argv[2]))
