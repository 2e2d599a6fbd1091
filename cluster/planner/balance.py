"""How evenly a placement spreads the work over the workers."""

from __future__ import annotations

import numpy as np

from cluster.planner.crew import Crew, Held, Loads, hit
from cluster.planner.redundancy import some_load


def balancedness(held: Held, load: Loads, crew: Crew, reach: Held | None = None) -> Loads:
    """float64 [layers]: mean over max of the busy times of the workers that share the layer.

    An expert's tokens are taken to be spread evenly over its copies. Workers of different speed
    count by it: 1.0 is when all who hold something of the layer are done at the same time.

    Args:
        held: [layers, experts, workers]. load: [layers, experts], tokens.
        reach: [layers, workers], who should share the layer though they may hold nothing yet.
    """
    work = work_of(held, load)
    sharing = hit(held, 1) if reach is None else reach | hit(held, 1)
    speed = np.where(sharing, crew.speed, 0.0)
    return _mean_over_max(work, speed)


def fleet_balancedness(held: Held, load: Loads, crew: Crew, joining: Held | None = None) -> float:
    """The same over the sums of all layers and over all workers that hold anything at all.

    Args:
        joining: bool [workers], who counts besides, though they may hold nothing yet.
    """
    work = work_of(held, load).sum(axis=0, keepdims=True)
    sharing = hit(held, (0, 1)) if joining is None else joining | hit(held, (0, 1))
    speed = np.where(sharing, crew.speed, 0.0)[None]
    return float(_mean_over_max(work, speed)[0])


def work_of(held: Held, load: Loads) -> Loads:
    """float64 [layers, workers]: tokens that each worker gets."""
    copies = np.maximum(held.sum(axis=-1), 1)
    share = some_load(load) / copies
    work: Loads = np.einsum("le,lew->lw", share, held, optimize=False)
    return work


def _mean_over_max(work: Loads, speed: Loads) -> Loads:
    total = speed.sum(axis=1)
    busiest = np.divide(work, speed, out=np.zeros_like(work), where=speed > 0).max(axis=1)
    ideal = np.divide(work.sum(axis=1), total, out=np.zeros_like(total), where=total > 0)
    score: Loads = np.divide(ideal, busiest, out=np.ones_like(ideal), where=busiest > 0)
    return score
