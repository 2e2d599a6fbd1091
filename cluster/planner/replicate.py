"""The first placement of a fleet with its redundant experts: a grid's layout, and copies beside it.

Layers that several workers share get single experts twice or more, on the same workers; a layer
that one worker holds whole gets whole copies, since a row then still goes to one worker only.
"""

from __future__ import annotations

import numpy as np

from cluster.planner.crew import ANY_PRINT, Counts, Crew, Held, Loads, hit
from cluster.planner.drafts import Drafts
from cluster.planner.layout import Infeasible
from cluster.planner.redundancy import TWICE, Redundancy, copies_wanted
from cluster.planner.restore import spread
from cluster.planner.whole import copy_layers


def replicate(
    held: Held, load: Loads | None, redundant: Redundancy, crew: Crew
) -> Held | Infeasible:
    """bool [layers, experts, workers]: `held`, each expert once, with the redundant copies.

    With a load (tokens, [layers, experts]) shared layers are packed anew by it, as EPLB does it;
    without one nothing of `held` moves.
    """
    most = len(crew.ids)
    reach = hit(held, 1)
    whole = reach.sum(axis=1) == 1
    if redundant == TWICE and most < 2:
        return Infeasible(reason="every expert twice needs at least 2 workers")
    if load is None:
        wanted = _evenly(held.shape[0], held.shape[1], redundant, most)
    else:
        wanted = copies_wanted(load, redundant, most)
    weight = np.zeros(held.shape[:2]) if load is None else load
    wanted[whole] = _whole(weight[whole], redundant, most)
    if (needed := int(wanted.sum())) > (room := int(crew.capacity.sum())):
        return Infeasible(reason=f"{needed} experts with their copies, and room for {room}")
    full = held.copy()
    if load is not None:
        full[~whole] = False
    home: Counts = np.full(full.shape[:2], ANY_PRINT, np.int64)
    copy_layers(full, whole, wanted, home[:, 0], weight, crew)
    rows, used = (~whole).nonzero()[0].tolist(), full.sum(axis=(0, 1))
    drafts = Drafts(rows, full, used, wanted, wanted, weight, home, crew, reach)
    for layer in rows:
        packed = drafts.of(layer, used)
        used += packed.sum(axis=0) - full[layer].sum(axis=0)
        full[layer] = packed
    spread(full, home, weight, crew, reach)
    if missing := int((wanted - full.sum(axis=2)).sum()):
        return Infeasible(reason=f"no worker has room for {missing} of the redundant experts")
    return full


def _evenly(layers: int, experts: int, redundant: Redundancy, most: int) -> Counts:
    """Copies when every expert is as good as another: redundant ones at even distances."""
    if redundant == TWICE:
        return np.full((layers, experts), 2, np.int64)
    extra = min(int(redundant), experts * (most - 1))
    all_of, some = divmod(extra, experts)
    copies = np.full((layers, experts), 1 + all_of, np.int64)
    copies[:, np.arange(some) * experts // max(some, 1)] += 1
    return copies


def _whole(load: Loads, redundant: Redundancy, most: int) -> Counts:
    """Copies in layers that stay whole: as many layers as the redundant experts of all add up to,
    rounded down, the busiest first."""
    layers, experts = load.shape
    total = layers if redundant == TWICE else int(redundant) * layers // experts
    copies = np.ones(load.shape, np.int64)
    order = np.argsort(-load.sum(axis=1), kind="stable")
    for turn in range(min(total, layers * (most - 1))):
        copies[order[turn % layers]] += 1
    return copies
