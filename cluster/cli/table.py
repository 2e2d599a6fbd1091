"""Text tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.views import ranges

_NODE_CHARS = 8


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as what is in them, two spaces apart.

    >>> print(table(["a", "bb"], [["ccc", 1]]))
    a    bb
    ccc  1
    """
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def process_table(status: Mapping[str, Any]) -> str:
    """What runs where: one line a process."""
    rows = [
        [
            process["id"],
            process["state"],
            str(process["node"])[:_NODE_CHARS] or "-",
            process["pid"] or "-",
            process["address"] or "-",
            _holds(process),
            _load(process),
        ]
        for process in status["processes"]
    ]
    return table(["process", "state", "node", "pid", "address", "holds", "load"], rows)


def _holds(process: Mapping[str, Any]) -> str:
    if process["layers"]:
        layers = ranges(process["layers"])
        return f"{process['experts']} experts of layers {layers}"
    if process["spare"]:
        return "stands by"
    if process["epoch"]:
        return f"epoch {process['epoch']['term']}.{process['epoch']['counter']}"
    return ""


def _load(process: Mapping[str, Any]) -> str:
    load = process["load"]
    words = []
    if "running" in load:
        words.append(f"{load['running']} running, {load['waiting']} waiting")
        if load["parked"]:
            words.append(f"{load['parked']} parked")
    if "tokens" in load:
        words.append(f"{load['tokens']} expert rows")
    if process["leaving"]:
        words.append("is being emptied")
    if process["restarts"]:
        words.append(f"restarted {process['restarts']}x")
    if process["error"] and process["state"] != "ready":
        words.append(process["error"])
    return ", ".join(words)
