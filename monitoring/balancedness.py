"""How evenly a layer's tokens fall on its experts."""

from __future__ import annotations

from collections.abc import Sequence


def balancedness(loads: Sequence[float]) -> float:
    """Mean load over maximum load: 1 is perfect, 1/len(loads) is everything on one.

    Args:
        loads: tokens per expert (or per worker), none negative.

    Returns:
        A number in (0, 1]; 1.0 where nothing was loaded, since nothing is uneven then.

    Raises:
        ValueError: a load is negative.
    """
    if any(load < 0 for load in loads):
        raise ValueError("a load cannot be negative")
    peak = max(loads, default=0.0)
    if peak == 0:
        return 1.0
    return sum(loads) / (len(loads) * peak)
