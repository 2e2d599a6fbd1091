"""A controller that takes over the fleet of another one."""

from __future__ import annotations

import pytest

from cluster.fleet import Phase
from cluster.saved import resume, save
from cluster.signals import (
    Absent,
    Died,
    DrainAsked,
)
from tests.support.fleet_script import FOUR, Script, four
from wire.placement import Epoch


def test_a_new_controller_finds_the_fleet_as_it_is() -> None:
    script = four(spares=1)
    script.do(DrainAsked(names=frozenset({"expert-1"}), by="test"))
    script.tick()
    script.answer()
    saved, holds = save(script.fleet), dict(script.fleet.members)
    heir = Script(fleet=resume(saved, Script(owners=FOUR, workers=4, spares=1).fleet))
    assert heir.fleet.members["expert-1"].leaving
    assert not heir.fleet.begun
    heir.tick()
    told: list[str] = []
    for port, (name, member) in enumerate(list(heir.fleet.members.items())):
        assert member.phase is Phase.STARTING
        heir.launched(name, port)
        known = (
            {"epoch": Epoch(term=6, counter=9)}
            if name == "router-0"
            else {"held": holds[name].experts}
        )
        told += heir.seen(name, **known)
    assert told[-1].startswith("publish 7.1 to router-0")
    assert all(heir.fleet.placement.owners[1])
    heir.run(30)
    assert "expert-1" not in heir.fleet.members
    assert heir.fleet.workers == 3
    assert "experts_lost" not in heir.kinds


@pytest.mark.parametrize("silent", [False, True])
def test_an_heir_repairs_at_once_what_was_lost_with_its_predecessor(silent: bool) -> None:
    """Without waiting for the process that is started anew, nor long for one that hangs."""
    script = four(spares=1)
    heir = Script(fleet=resume(save(script.fleet), script.fleet))
    heir.tick()
    if not silent:
        heir.do(Absent(member_id="expert-1"))
    for port, name in enumerate(list(heir.fleet.members)):
        if name != "expert-1":
            heir.launched(name, port)
    for name in list(heir.fleet.members):
        if name != "expert-1":
            heir.seen(name, held=script.fleet.members[name].experts)
    assert heir.fleet.begun is not silent
    if silent:
        heir.tick(9.5)
        assert not heir.fleet.begun
        heir.tick(1.0)
    assert heir.fleet.begun
    heir.seen("router-0")
    assert [(c.worker.member_id, c.experts) for c in heir.pending] == [
        ("expert-4", script.fleet.members["expert-1"].experts)
    ]
    assert heir.fleet.members["expert-1"].phase is Phase.STARTING
    assert ("member_died" in heir.kinds) is not silent


def test_an_heir_moves_nothing_before_every_router_has_its_term() -> None:
    script = four()
    heir = Script(fleet=resume(save(script.fleet), script.fleet))
    heir.tick()
    for port, name in enumerate(list(heir.fleet.members)):
        heir.launched(name, port)
    for name in list(heir.fleet.members):
        old = {"epoch": Epoch(term=1, counter=9)} if name == "router-0" else {}
        heir.seen(name, held=script.fleet.members[name].experts, **old)
    assert heir.fleet.begun
    heir.do(Died(member_id="expert-0", error="gone"))
    assert heir.pending == []
    heir.seen("router-0")
    assert [c.worker.member_id for c in heir.pending] != []
