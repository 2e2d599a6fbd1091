"""How many copies each expert should have: the hottest get the redundant ones."""

from __future__ import annotations

import numpy as np

from cluster.planner.crew import Counts, Loads

TWICE = "twice"
Redundancy = int | str


def copies_wanted(
    load: Loads, redundant: Redundancy, most: int, start: Counts | None = None
) -> Counts:
    """int64 [layers, experts]: copies of each expert, at least one and at most `most`.

    Each redundant copy goes to the expert whose copies are the busiest, as DeepSeek's EPLB does it,
    so that the busiest copy of all is as light as it can be; ties go to the lower expert.

    Args:
        load: [layers, experts], tokens.
        redundant: copies in each layer besides the first ones, or `TWICE`: two of every expert.
        most: workers that can hold copies.
        start: [layers, experts], copies to begin with; those of no expert are taken away.

    >>> copies_wanted(np.array([[90.0, 10.0, 30.0]]), 2, most=4).tolist()
    [[3, 1, 1]]
    >>> copies_wanted(np.array([[90.0, 10.0, 30.0]]), "twice", most=4).tolist()
    [[2, 2, 2]]
    """
    layers, experts = load.shape
    copies = np.ones(load.shape, np.int64) if start is None else np.maximum(start, 1)
    if redundant == TWICE:
        return np.maximum(copies, min(2, most))
    rows = np.arange(layers)
    weight = some_load(load)
    wanted = min(experts + int(redundant), experts * most)
    for _ in range(max(0, wanted - int(copies.sum(axis=1).min(initial=wanted)))):
        short = rows[copies.sum(axis=1) < wanted]
        share = np.where(copies[short] < most, weight[short] / copies[short], -1.0)
        copies[short, share.argmax(axis=1)] += 1
    return copies


def some_load(load: Loads) -> Loads:
    """The load with no zero in it, so that unused experts are spread too; all equal if all are 0.

    Unused experts count a thousandth of the layer's mean.
    """
    mean = load.mean(axis=-1, keepdims=True)
    floor = np.where(mean > 0, mean * 1e-3, 1.0)
    least: Loads = np.maximum(load, floor)
    return least
