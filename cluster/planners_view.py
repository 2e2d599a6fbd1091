"""A fleet as the planner knows it."""

from __future__ import annotations

import dataclasses

import numpy as np

from cluster.fleet import Fleet, Phase, Role
from cluster.planner import WorkerSpec, WorkerState
from cluster.planner.crew import Loads
from cluster.rules import Rules

_LEAST_HYSTERESIS = 0.01


def workers_of(fleet: Fleet, rules: Rules, *, spares: bool = True) -> list[WorkerState]:
    """The expert workers as the planner knows them."""
    return [
        WorkerState(
            spec=WorkerSpec(
                worker_id=m.member_id,
                # That of one that is down decides nothing, and changes when it is started anew.
                node=m.node if m.phase is Phase.READY else "",
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


def weigh(fleet: Fleet, load: Loads, rules: Rules) -> Fleet:
    """The fleet with the load of a window, if loads may move experts and this one tells something.

    What it tells has to be more than chance: of n rows to each worker, the busiest has some
    2 / sqrt(n) more by chance, which must be less than the hysteresis. Until the next window that
    tells, plans go by the last one that did.
    """
    workers = sum(m.phase is Phase.READY for m in fleet.serving)
    least = 4.0 / max(rules.hysteresis, _LEAST_HYSTERESIS) ** 2
    if not rules.balance or load.sum(axis=1).min() < least * workers:
        return fleet
    return dataclasses.replace(fleet, load=load, weighed=True)


def load_of(fleet: Fleet) -> Loads:
    """What plans go by; all 0, which makes all experts equal, where nothing is known."""
    if fleet.load is not None:
        return fleet.load
    experts = next(iter(fleet.owners.values()))
    return np.zeros((len(fleet.owners), len(experts)))
