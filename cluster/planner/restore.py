"""What a placement lacks, put back: experts without a live copy first, then missing copies.

Nothing that is there moves, except copies that share a node while another one has room.
"""

from __future__ import annotations

import numpy as np

from cluster.planner.crew import Counts, Crew, Held, Loads, copies_in, hit, homes
from cluster.planner.drafts import Drafts
from cluster.planner.redundancy import TWICE, Redundancy, copies_wanted, some_load
from cluster.planner.whole import copy_layers, whole_layers


def restore(
    held: Held, ever: Held, load: Loads, redundant: Redundancy, crew: Crew, reach: Held
) -> Held:
    """bool [layers, experts, workers]: `held` and what it lacked, as far as there is room.

    A lost expert for which nobody has room gets the place of the coldest copy that is not the only
    one of its expert.

    Args:
        held: [layers, experts, workers], copies on workers that stay.
        ever: the same with all others; their fingerprints bind, and layers that were whole are to
            have as many copies.
        load: [layers, experts], tokens.
        reach: [layers, workers], who should hold experts of the layer.
    """
    held = held.copy()
    there: Counts = held.sum(axis=2)
    most = max(1, int(crew.taking.sum()))
    wanted = copies_wanted(load, redundant, most, start=there)
    first = np.maximum(there, 1)
    home, whole = homes(ever, crew), whole_layers(ever)
    before = np.minimum(hit(ever, 1).sum(axis=1), most)
    wanted[whole] = np.maximum(before, 2 if redundant == TWICE and most > 1 else 1)[whole, None]
    whole &= np.asarray((home == home[:, :1]).all(axis=1))
    for copies in (first, wanted):
        copy_layers(held, whole, copies, home[:, 0], load, crew)
        used = held.sum(axis=(0, 1))
        rows = (held.sum(axis=2) < copies).any(axis=1).nonzero()[0].tolist()
        drafts = Drafts(rows, held, used, copies, wanted, load, home, crew, reach)
        for layer in rows:
            packed = drafts.of(layer, used)
            used += packed.sum(axis=0) - held[layer].sum(axis=0)
            held[layer] = packed
        if copies is first:
            _make_room(held, home, load, crew)
    spread(held, home, load, crew, reach)
    return held


def spread(held: Held, home: Counts, load: Loads, crew: Crew, reach: Held) -> None:
    """Moves, in `held`, copies that share a node to nodes that have room."""
    if len(np.unique(crew.node[crew.taking])) < 2:
        return
    used = held.sum(axis=(0, 1))
    nodes = np.zeros((*held.shape[:2], crew.nodes), np.int16)
    rows, experts, places = copies_in(held)
    np.add.at(nodes, (rows, experts, crew.node[places]), 1)
    for layer, expert in np.argwhere((nodes > 1).any(axis=2)).tolist():
        row = held[layer, expert]
        for place in np.flatnonzero(row).tolist():
            mine = nodes[layer, expert]
            if mine[crew.node[place]] < 2:
                continue
            able = crew.taking & crew.alike(int(home[layer, expert])) & (used < crew.capacity)
            able &= (mine == 0)[crew.node] & ~row
            if not able.any():
                continue
            work = some_load(load[layer]) / np.maximum(held[layer].sum(axis=1), 1) @ held[layer]
            key = np.where(able, work / crew.speed + np.where(reach[layer], 0, work.sum()), np.inf)
            to = int(key.argmin())
            row[place], row[to] = False, True
            used[place] -= 1
            used[to] += 1
            mine[crew.node[place]] -= 1
            mine[crew.node[to]] += 1


def _make_room(held: Held, home: Counts, load: Loads, crew: Crew) -> None:
    """Gives lost experts, in `held`, the places of copies that are not needed to keep one alive."""
    lost = np.argwhere(~hit(held, 2)).tolist()
    if not lost:
        return
    copies: Counts = held.sum(axis=2)
    share = some_load(load) / np.maximum(copies, 1)
    places = np.argwhere(held & (copies > 1)[..., None] & crew.taking)
    coldest = places[np.argsort(share[places[:, 0], places[:, 1]], kind="stable")].tolist()
    for layer, expert in lost:
        alike = crew.alike(int(home[layer, expert]))
        for other, cold, place in coldest:
            if copies[other, cold] > 1 and held[other, cold, place] and alike[place]:
                held[other, cold, place] = False
                copies[other, cold] -= 1
                held[layer, expert, place] = True
                break
