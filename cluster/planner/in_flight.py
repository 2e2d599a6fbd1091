"""How many micro-batches to keep in flight."""

from __future__ import annotations

from collections.abc import Callable

from cluster.planner.plan import Plan

CHOICES = (1, 2, 4, 8)


def choose_in_flight(plan_for: Callable[[int], Plan]) -> tuple[int, Plan]:
    """The number with the shortest predicted step, and its plan; ties go to the fewest.

    Each micro-batch has costs of its own, so more of them pay off only where the workers would
    otherwise wait for the router, and the router for them.
    """
    plans = [(number, plan_for(number)) for number in CHOICES]
    return min(plans, key=lambda item: round(item[1].prediction.step_seconds, 6))
