"""Draw `loss.png` from the logs of a run's stages: loss, learning rate and data mix, and the load of the busiest expert.

python plot.py --log log.jsonl log-second.jsonl --out ../loss.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def smooth(values: list[float], width: int = 8) -> np.ndarray:
    """Mean over a sliding window, the ends padded with their own values."""
    padded = np.pad(np.array(values), (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def joined(logs: list[Path]) -> tuple[list[dict[str, Any]], list[int], int]:
    """The readings of all stages with steps counted on, each stage's first step, and the tokens of a step."""
    every: list[dict[str, Any]] = []
    begins: list[int] = []
    tokens = 0
    for log in logs:
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        tokens = int(rows[0]["arguments"]["batch"]) * rows[0]["ranks"]
        begins.append(every[-1]["step"] if every else 0)
        every += [row | {"step": begins[-1] + row["step"]} for row in rows if row.get("step", 0) >= 50]
    return every, begins, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, nargs="+", required=True, help="one a stage, in order")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows, begins, tokens = joined(args.log)
    steps = [row["step"] for row in rows]
    figure, (top, middle, low) = plt.subplots(3, 1, figsize=(8, 8), sharex=True, height_ratios=(3, 1.3, 1.6))
    top.plot(steps, [row["loss"] for row in rows], color="#b8c4d6", linewidth=0.8, label="of one step")
    top.plot(steps, smooth([row["loss"] for row in rows]), color="#1f4e8c", label="mean of 8 readings")
    top.set(
        ylabel="loss, nats per learnt token",
        ylim=(0, 4),
        title="nano-K2: the mix changes, so losses of different steps differ in kind; dashed: next stage",
    )
    top.legend()
    middle.plot(steps, [row["lr"] * 1000 for row in rows], color="#8c3b1f", label="learning rate x 1000")
    middle.plot(steps, [row["share"] for row in rows], color="#2c7a4b", label="share of conversations")
    middle.legend()
    for layer in range(4):
        low.plot(steps, smooth([row["peak"][layer] for row in rows]), linewidth=1, label=f"layer {layer + 1}")
    low.set(xlabel=f"step ({tokens:,} tokens)", ylabel="busiest expert / mean", ylim=(1, 10))
    low.legend(ncols=4)
    for axis in (top, middle, low):
        axis.grid(alpha=0.3)
        for begin in begins[1:]:
            axis.axvline(begin, color="#555555", linestyle="--", linewidth=1)
    figure.tight_layout()
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
