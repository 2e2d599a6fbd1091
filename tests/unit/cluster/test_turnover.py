"""Members that take the place of others: routers that are replaced, workers that are refused."""

from __future__ import annotations

import dataclasses

from cluster.fleet import Phase, Role
from cluster.saved import resume, save
from cluster.signals import (
    Died,
    DrainAsked,
    Launch,
    Nodes,
    ScaleAsked,
    Tick,
)
from tests.support.fleet_script import RULES, Script, four
from wire.placement import Epoch


def test_a_router_goes_only_when_another_one_takes_its_requests() -> None:
    script = four()
    script.do(DrainAsked(names=frozenset({"router-0"}), by="test"))
    script.tick()
    assert script.tick() == ["launch router-1"]
    assert script.tick() == []
    assert [m.member_id for m in script.fleet.takers] == ["router-0"]
    assert script.fleet.served
    script.launched("router-1", 90)
    script.seen("router-1", epoch=Epoch(term=0, counter=0))
    assert script.tick() == []
    script.seen("router-1")
    assert [m.member_id for m in script.fleet.takers] == ["router-1"]
    assert script.tick(1.9) == []
    assert script.tick(0.2) == ["drain router-0"]
    assert script.tick() == []
    script.seen("router-0", "draining")
    assert script.fleet.served
    assert script.answer() == ["kill router-0"]
    assert [m.member_id for m in script.fleet.of(Role.ROUTER)] == ["router-1"]
    assert script.fleet.settled
    heir = Script(fleet=resume(save(script.fleet), four().fleet))
    assert [m.member_id for m in heir.fleet.of(Role.ROUTER)] == ["router-1"]
    assert heir.fleet.router_number == 1


def test_a_router_that_nobody_can_take_over_from_is_kept() -> None:
    script = four()
    script.do(DrainAsked(names=frozenset({"router-0"}), by="test"))
    for _ in range(3):
        script.tick(5)
        script.do(Died(member_id="router-1", error="no room"))
    script.tick()
    script.tick()
    assert list(script.fleet.of(Role.ROUTER)) == [script.fleet.members["router-0"]]
    assert not script.fleet.members["router-0"].leaving
    assert "router_kept" in script.kinds
    assert script.fleet.settled


def test_a_router_that_falls_while_it_is_replaced_is_not_started_again() -> None:
    script = four()
    script.do(DrainAsked(names=frozenset({"router-0"}), by="test"))
    script.tick()
    script.tick()
    script.do(Died(member_id="router-0", error="gone"))
    script.run(20)
    assert [m.phase for m in script.fleet.of(Role.ROUTER)] == [Phase.READY]
    assert script.fleet.settled


def test_routers_leave_a_node_that_leaves() -> None:
    script = four()
    script.do(Nodes(leaving=frozenset({"n"})))
    told = script.run(60)
    launch = next(a for a in script.launches if a.member.member_id == "router-1")
    assert launch.avoid == {"n"}
    assert "kill router-0" in told
    assert "experts_lost" not in script.kinds


def test_a_refused_worker_is_replaced_on_another_node() -> None:
    script = four()
    for name, node in (("expert-0", "bad"), ("expert-1", "good")):
        member = script.fleet.members[name]
        script.fleet = script.fleet.put(dataclasses.replace(member, node=node))
    script.do(Died(member_id="expert-0", error="gone"))
    script.tick()
    script.launched("expert-0", 70, "bad")
    script.seen("expert-0", fingerprint="other")
    assert script.fleet.members["expert-0"].phase is Phase.DOWN
    script.run(60)
    assert "expert-0" not in script.fleet.members
    launch = next(a for a in script.launches if a.member.member_id == "expert-4")
    assert launch.avoid == {"bad"}
    assert len(script.fleet.serving) == 4
    assert all(script.fleet.placement.owners[1])
    assert script.fleet.settled


def test_who_is_started_while_others_serve_leaves_the_processors_to_them() -> None:
    def launches(script: Script) -> dict[str, bool]:
        script.launches.clear()
        script.run(30)
        return {launch.member.member_id: launch.polite for launch in script.launches}

    script = four()
    assert not any(launch.polite for launch in script.launches)
    script.do(ScaleAsked(workers=5, by="test"))
    assert launches(script) == {"expert-4": True}
    script.do(Died(member_id="expert-4", error="gone"))
    assert launches(script) == {"expert-4": False}
    script.do(Died(member_id="router-0", error="gone"))
    assert launches(script) == {"router-0": False}


def test_a_worker_that_rows_wait_for_takes_what_processors_it_can_get() -> None:
    script = four()
    script.rules = dataclasses.replace(RULES, memory_bytes=2)
    script.do(Died(member_id="expert-0", error="gone"))
    script.do(Tick())
    assert script.fleet.lost_since is not None
    assert script.launches[-1] == Launch(member=script.fleet.members["expert-0"])
