"""Copies that nobody else has are lost, one worker, two or a whole node at a time."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from benchmarks.failover.clients import Answers, Clients
from tests.chaos.fleet import Fleet
from tests.chaos.killer import Killer
from tests.chaos.nodes import kill
from tests.chaos.story import tell

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

_BREATH_S = 2.0


def test_both_copies_are_loaded_again(
    fleet: Fleet, clients: Clients, answers: Answers, killer: Killer
) -> None:
    """Two workers at once: some experts have lost both of their copies."""
    known = len(fleet.events())
    victims = killer.partners()
    with clients.streaming() as load:
        time.sleep(_BREATH_S)
        moment = time.perf_counter()
        for victim in victims:
            kill(victim["pid"])
        recovered = fleet.wait_for_event("experts_recovered", known)
        time.sleep(_BREATH_S)
    tell(
        f"two workers at once, all is held again after {recovered['seconds']:.2f} s", load, [moment]
    )
    load.check(answers)


@pytest.mark.usefixtures("only_full")
def test_a_node_and_all_that_it_runs(fleet: Fleet, clients: Clients, answers: Answers) -> None:
    """Two copies of an expert are never on one node while another has room, so none is lost."""
    fleet.nodes.add()
    known = len(fleet.events())
    lost, workers = Counter(row["node"] for row in fleet.workers()).most_common()[0]
    with clients.streaming() as load:
        time.sleep(_BREATH_S)
        moment = time.perf_counter()
        fleet.nodes.lose(lost)
        status = fleet.wait(
            "life without the node",
            lambda status: all(p["node"] != lost for p in status["processes"] if p["pid"]),
        )
        time.sleep(_BREATH_S)
    tell(f"a node with {workers} workers", load, [moment])
    load.check(answers)
    assert status["processes"]
    assert "member_died" in [event["kind"] for event in fleet.events()[known:]]
    fleet.rest()
    assert all(row["node"] != lost for row in fleet.workers() + fleet.workers(spare=True))
