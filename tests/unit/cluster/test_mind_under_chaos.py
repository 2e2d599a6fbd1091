"""Random deaths, delays, failures and asks: what is published is held, and it all comes to rest."""

from __future__ import annotations

import pytest

from cluster.fleet import Role
from cluster.holdings import owned
from tests.support.fleet_world import World


@pytest.mark.parametrize("seed", range(40))
def test_what_is_published_is_held_and_all_comes_to_rest(seed: int) -> None:
    world = World(seed)
    for _ in range(80):
        world.step(calm=False)
    for _ in range(900):
        world.step(calm=True)
        world.now += 0.4
    fleet = world.fleet
    story = [f"{n.kind} {n.subject} {n.text}" for n in world.notes[-12:]]
    assert fleet.change is None, story
    assert fleet.settled, story
    assert not fleet.restarts
    assert not any(m.leaving or m.resting or m.doubted for m in fleet.members.values())
    assert len(fleet.serving) == fleet.workers
    assert len(fleet.takers) == len(fleet.of(Role.ROUTER)) == fleet.routers
    share = owned(fleet.owners)
    for name, held in world.held.items():
        if name in fleet.members and name.startswith("expert"):
            assert held == share.get(name, {}), story
    assert all(ids for experts in fleet.owners.values() for ids in experts)
    quiet = len(world.notes)
    for _ in range(50):
        world.step(calm=True)
    assert len(world.notes) == quiet, "it never comes to rest"
