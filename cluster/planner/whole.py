"""Layers that workers hold as a whole, as in a layer-major grid, and are copied as a whole."""

from __future__ import annotations

import numpy as np

from cluster.planner.crew import ANY_PRINT, Counts, Crew, Held, Loads, hit
from cluster.planner.redundancy import some_load


def whole_layers(held: Held) -> Held:
    """bool [layers]: whoever holds an expert of the layer holds all of it."""
    some = hit(held, 1)
    return hit(some, 1) & ~hit(some & ~np.asarray(held.all(axis=1)), 1)


def copy_layers(
    held: Held, whole: Held, wanted: Counts, home: Counts, load: Loads, crew: Crew
) -> None:
    """Adds, in `held`, copies of `whole` layers up to `wanted`, while somebody has room for one.

    Spares take them first, then other nodes, then who is least busy. Missing first copies count.

    Args:
        held: [layers, experts, workers]. wanted: [layers, experts], equal within a whole layer.
        home: [layers], fingerprints that copies must have; `ANY_PRINT`: the first one's.
        load: [layers, experts], tokens.
    """
    experts = held.shape[1]
    for layer in np.flatnonzero(whole).tolist():
        while (there := int(held[layer].sum(axis=1).min())) < int(wanted[layer, 0]):
            holders = hit(held[layer], 0)
            printed = int(home[layer])
            if printed == ANY_PRINT and there:
                printed = int(crew.prints[holders.argmax()])
            room = crew.capacity - held.sum(axis=(0, 1)) >= experts
            able = crew.taking & crew.alike(printed) & room & ~holders
            if not able.any():
                break
            crowd = np.bincount(crew.node[holders], minlength=crew.nodes)[crew.node]
            # Layers without any load count a little: else one worker would get all of them.
            tokens = some_load(load.sum(axis=1)) / np.maximum(held.sum(axis=2).max(axis=1), 1)
            busy = np.einsum("l,lw->w", tokens, hit(held, 1)) / crew.speed
            place = np.lexsort((busy, ~crew.spare, crowd, ~able))[0]
            held[layer, :, place] = True
