"""One rebalance on loads as they really are: nano-K2's, recorded by domain, and Zipf's law."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cluster.planner import WorkerSpec, WorkerState, rebalance
from cluster.planner.crew import Loads, Owners, crew_of, owners_of
from cluster.planner.replicate import replicate
from tests.support.checkpoints import NANO_K2

BYTES = 1000
WORKERS = 8
REDUNDANT = 32
BAR = 0.95
DOMAINS = ("chat", "tools", "code", "docs")


def recorded(domain: str) -> Loads:
    """float64 [layers, experts]; all domains together under the name of none."""
    loads = json.loads((NANO_K2 / "expert_loads.json").read_text(encoding="utf-8"))["loads"]
    chosen = DOMAINS if domain == "all" else (domain,)
    return np.sum([np.array(loads[name], np.float64) for name in chosen], axis=0)


def zipf(exponent: float) -> Loads:
    draw = np.random.default_rng(3)
    shares = 1e6 / np.arange(1, 385) ** exponent
    return np.stack([draw.permutation(shares) for _ in range(4)])


LOADS = {
    **{domain: recorded(domain) for domain in (*DOMAINS, "all")},
    **{f"zipf {exponent}": zipf(exponent) for exponent in (0.8, 1.0, 1.2)},
}


def fleet() -> list[WorkerState]:
    return [
        WorkerState(
            spec=WorkerSpec(
                worker_id=f"w{number}",
                node=f"n{number}",
                expert_bandwidth=1e9,
                memory_bytes=None,
                fingerprint="f",
            )
        )
        for number in range(WORKERS)
    ]


def by_number(load: Loads, workers: list[WorkerState]) -> Owners:
    """The experts in equal runs, as a fleet begins that knows no load."""
    layers, experts = load.shape
    crew = crew_of(workers, BYTES)
    held = np.zeros((layers, experts, WORKERS), np.bool_)
    held[:, np.arange(experts), np.arange(experts) * WORKERS // experts] = True
    full = replicate(held, None, REDUNDANT, crew)
    assert isinstance(full, np.ndarray)
    return owners_of(full, range(1, layers + 1), crew)


@pytest.mark.parametrize("name", LOADS)
def test_one_rebalance_evens_it_out(name: str) -> None:
    load, workers = LOADS[name], fleet()
    made = rebalance(
        by_number(load, workers), load, workers, redundant=REDUNDANT, expert_bytes=BYTES
    )
    before, after = min(made.before.values()), min(made.after.values())
    print(
        f"\n{name}: worst layer {before:.3f} -> {after:.3f}, fleet {made.fleet_before:.3f} -> "
        f"{made.fleet_after:.3f}, {made.transition.copies_loaded} copies loaded"
    )
    assert before < BAR <= after
    assert made.fleet_after >= BAR


@pytest.mark.parametrize("known", DOMAINS)
def test_other_talk_needs_another_placement(known: str) -> None:
    """Experts placed for one domain are uneven for another, until the next rebalance."""
    workers = fleet()
    placed = rebalance(
        by_number(LOADS[known], workers),
        LOADS[known],
        workers,
        redundant=REDUNDANT,
        expert_bytes=BYTES,
    )
    for domain in DOMAINS:
        if domain == known:
            continue
        made = rebalance(
            placed.transition.owners,
            LOADS[domain],
            workers,
            redundant=REDUNDANT,
            expert_bytes=BYTES,
        )
        print(f"\n{known} then {domain}: {made.fleet_before:.3f} -> {made.fleet_after:.3f}")
        assert min(made.after.values()) >= BAR
