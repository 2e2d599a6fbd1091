"""A fleet as the planner knows it."""

from __future__ import annotations

import numpy as np

from cluster.fleet import Fleet, Phase, Role
from cluster.planner import WorkerSpec, WorkerState
from cluster.planner.crew import Loads
from cluster.rules import Rules


def workers_of(fleet: Fleet, rules: Rules, *, spares: bool = True) -> list[WorkerState]:
    """The expert workers as the planner knows them."""
    return [
        WorkerState(
            spec=WorkerSpec(
                worker_id=m.member_id,
                node=m.node,
                expert_bandwidth=rules.bandwidth,
                memory_bytes=rules.memory_bytes,
                fingerprint=m.fingerprint,
            ),
            live=m.phase is Phase.READY,
            leaving=m.leaving or m.resting,
            spare=m.spare,
        )
        for m in fleet.of(Role.EXPERT)
        if spares or not m.spare
    ]


def load_of(fleet: Fleet) -> Loads:
    """Of the last window, or of nothing."""
    if fleet.load is not None:
        return fleet.load
    experts = next(iter(fleet.owners.values()))
    return np.zeros((len(fleet.owners), len(experts)))
