"""Experts, workers and processes move under load, and clients see hardly any of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.failover.clients import Clients
from benchmarks.failover.gaps import between, figures, percentile
from tests.chaos.asking import clients_of
from tests.chaos.fleet import Fleet, fleet_on
from tests.chaos.form import Form
from tests.chaos.nodes import ray_nodes
from tests.chaos.story import tell

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

WORKERS = 4
QUIET_S = 20.0
MOST_SLOWER = 1.25
FEW = 2


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("moving")
    config = {"experts": {"workers": WORKERS, "spares": 1}}
    with ray_nodes(2) as nodes, fleet_on(nodes, folder, config) as fleet:
        yield fleet


MOVES: dict[str, Callable[[Fleet], None]] = {
    "scale up": lambda fleet: fleet.ask("/scale", experts=WORKERS + 1),
    "scale down": lambda fleet: fleet.ask("/scale", experts=WORKERS),
    "drain": lambda fleet: fleet.ask("/drain", names=[fleet.workers()[0]["id"]]),
    "scale up again": lambda fleet: fleet.ask("/scale", experts=WORKERS),
    "rolling restart": lambda fleet: fleet.ask("/restart"),
}


@pytest.mark.parametrize("move", MOVES)
def test_itl_hardly_rises(move: str, fleet: Fleet) -> None:
    fleet.rest()
    clients = clients_of(fleet)
    answers = clients.undisturbed()
    with clients.streaming() as load:
        fleet.watch(QUIET_S)
        begun = time.perf_counter()
        MOVES[move](fleet)
        fleet.rest(200)
        ended = time.perf_counter()
    load.check(answers)
    ratio = compare(move, load, begun, ended)
    assert ratio <= MOST_SLOWER


def test_a_rebalance_evens_the_load(tmp_path: Path, form: Form) -> None:
    """All clients ask for one of a few answers: few experts have most of the load."""
    config = {
        "experts": {
            "workers": WORKERS,
            "redundant_experts": 32,
            "spares": 0,
            "placement": "expert-major",
        },
        "rebalance": {"enabled": True, "interval_s": QUIET_S, "window_s": 3 * QUIET_S},
    }
    with ray_nodes(2) as nodes, fleet_on(nodes, tmp_path, config) as fleet:
        clients = clients_of(fleet, different=FEW)
        answers = clients.undisturbed()
        known = len(fleet.events())
        with clients.streaming() as load:
            before = balancedness(fleet, form.breath_s)
            event = fleet.wait_for_event("change_begun", known, 6 * QUIET_S)
            begun = time.perf_counter()
            fleet.wait_for_event("change_done", known)
            ended = time.perf_counter()
            after = balancedness(fleet, form.breath_s)
        load.check(answers)
    print(
        f"\nthe plan: {event['text']}; of tokens computed: {before:.3f} before, {after:.3f} after"
    )
    compare("rebalance", load, begun, ended)
    assert event["facts"]["reason"] == "balance"
    assert after > before


def balancedness(fleet: Fleet, seconds: float) -> float:
    """Mean over maximum of what workers compute within the time, in expert-token pairs."""

    def count() -> dict[str, int]:
        return {row["id"]: int(row["load"]["tokens"]) for row in fleet.workers()}

    first = count()
    time.sleep(seconds)
    loads = [tokens - first[worker] for worker, tokens in count().items()]
    return sum(loads) / len(loads) / max(loads)


def compare(move: str, load: Clients, begun: float, ended: float) -> float:
    """p99 of the gaps during the move over that before it."""
    gaps = load.gaps
    before, during = between(gaps, load.begun + 2.0, begun), between(gaps, begun, ended)
    ratio = percentile(during, 0.99) / percentile(before, 0.99)
    tell(f"{move} took {ended - begun:.1f} s", load)
    print(
        f"before: {figures(before)}\nduring: {figures(during)}\np99 {ratio:.2f} times that before"
    )
    return ratio
