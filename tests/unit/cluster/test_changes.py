"""Transitions as the controller's mind carries them out: who is told what, in which order."""

from __future__ import annotations

import dataclasses
import doctest
import re

import numpy as np
import pytest

import cluster.change
import cluster.holdings
from cluster.errors import ClusterError
from cluster.fleet import Role
from cluster.holdings import owned
from cluster.permit import permit
from cluster.signals import (
    Died,
    DrainAsked,
    Failed,
    Loaded,
    Nodes,
    RestartAsked,
    ScaleAsked,
    Seen,
    Weighed,
)
from tests.support.fleet_script import FOUR, RULES, Script, four
from wire.placement import Epoch

TWICE = {1: tuple((f"expert-{e // 2}", f"expert-{(e // 2 + 1) % 4}") for e in range(8))}


HOT = np.array([[90e3, 80e3, 1e3, 1e3, 1e3, 1e3, 1e3, 1e3]])


def test_examples_in_the_docstrings() -> None:
    for module in (cluster.change, cluster.holdings):
        assert doctest.testmod(module).failed == 0


def test_a_spare_starts_last_and_nobody_waits_for_it() -> None:
    script = Script(spares=1)
    assert script.tick() == ["launch expert-0", "launch expert-1", "launch router-0"]
    script.comes_up("expert-0", 1)
    script.launched("router-0", 3)
    assert script.comes_up("expert-1", 2) == ["publish 7.1 to router-0: expert-0 expert-1"]
    script.seen("router-0")
    assert script.tick() == []
    assert script.fleet.settled
    assert script.tick() == ["launch expert-2"]
    assert script.fleet.settled
    assert script.comes_up("expert-2", 4) == []
    assert script.fleet.placement.epoch == Epoch(term=7, counter=1)
    assert script.tick(100) == []


def test_a_spare_takes_the_place_of_a_lost_worker_which_comes_back_as_the_spare() -> None:
    script = four(spares=1)
    assert script.do(Died(member_id="expert-2", error="gone")) == [
        "kill expert-2",
        "publish 7.2 to router-0: expert-0 expert-1 expert-3",
        "expert-4 load 1:4-5",
    ]
    script.now += 0.3
    assert script.answer() == ["publish 7.3 to router-0: expert-0 expert-1 expert-3 expert-4"]
    assert script.fleet.placement.owners[1][4] == ("expert-4",)
    (recovered,) = [n for n in script.notes if n.kind == "experts_recovered"]
    assert recovered.seconds == pytest.approx(0.3)
    told = script.run(20)
    assert [line for line in told if "publish" not in line] == ["launch expert-2"]
    assert script.fleet.members["expert-2"].spare
    assert script.holds["expert-2"] == ""
    assert script.fleet.placement.epoch.counter == 3
    script.do(Died(member_id="expert-0", error="gone"))
    script.run(20)
    assert script.holds == {
        "expert-0": "",
        "expert-1": "1:2-3",
        "expert-2": "1:0-1",
        "expert-3": "1:6-7",
        "expert-4": "1:4-5",
    }


def test_copies_are_made_good_while_others_serve() -> None:
    rules = dataclasses.replace(RULES, redundant="twice")
    script = Script(rules, owners=TWICE, workers=4, spares=1)
    script.bring_up()
    script.run(10)
    script.notes.clear()
    before = script.holds
    script.do(Died(member_id="expert-1", error="gone"))
    assert all(script.fleet.placement.owners[1])
    script.run(20)
    assert script.holds["expert-4"] == before["expert-1"]
    assert script.holds["expert-1"] == ""
    assert "experts_lost" not in script.kinds


def test_all_workers_lost_at_once_come_back_by_themselves() -> None:
    script = four()
    for name in ("expert-0", "expert-1", "expert-2", "expert-3"):
        script.do(Died(member_id=name, error="gone"))
    script.run(30)
    assert script.fleet.settled
    assert script.fleet.placement.owners == FOUR
    assert "experts_recovered" in script.kinds


def test_a_worker_that_dies_in_a_change_has_it_planned_anew() -> None:
    script = four(spares=1)
    script.do(Died(member_id="expert-2", error="gone"))
    script.pending.clear()
    told = script.do(Died(member_id="expert-4", error="gone, too"))
    assert "change_abandoned" in script.kinds
    assert any(" load 1:4" in line for line in told)
    script.run(40)
    assert script.fleet.settled
    assert sorted(len(e[1]) for e in owned(script.fleet.owners).values()) == [2, 2, 2, 2]


def test_a_step_that_fails_has_the_change_planned_anew_after_the_worker_was_asked() -> None:
    script = four()
    script.do(Died(member_id="expert-2", error="gone"))
    command = script.pending[0]
    failed = Failed(member_id=command.worker.member_id, change=command.change, error="disk")
    script.pending.clear()
    assert script.do(failed) == []
    assert script.fleet.members[command.worker.member_id].doubted
    assert script.tick(2) == ["launch expert-2"]
    held = script.fleet.members[command.worker.member_id].experts
    again = script.seen(command.worker.member_id, held=held)
    assert any("load" in line for line in again)


def test_an_answer_to_a_change_that_was_abandoned_is_believed() -> None:
    script = four(spares=1)
    script.do(Died(member_id="expert-2", error="gone"))
    late = script.pending.pop()
    script.do(Failed(member_id="expert-4", change=late.change, error="timeout"))
    script.do(Loaded(member_id="expert-4", experts=late.experts, change=late.change))
    assert script.holds["expert-4"] == "1:4-5"


def test_old_copies_go_only_after_every_router_knows() -> None:
    script = four()
    script.do(DrainAsked(names=frozenset({"expert-3"}), by="test"))
    script.tick()
    script.answer()
    assert script.fleet.change is not None
    for _ in range(5):
        assert script.tick(1) == []
    assert script.seen("router-0") == []
    assert script.tick(0.6) == ["expert-3 evict 1:6-7"]


def test_scaling_up_gives_newcomers_their_part() -> None:
    script = four()
    script.do(ScaleAsked(workers=8, by="test"))
    script.run(30)
    assert script.fleet.settled
    assert len(script.fleet.placement.workers) == 8
    assert all(len(experts[1]) == 1 for experts in owned(script.fleet.owners).values())
    assert "experts_lost" not in script.kinds


def test_whole_layers_are_dealt_out_to_newcomers() -> None:
    layers = {n: ((f"expert-{n % 2}",),) * 4 for n in range(1, 6)}
    script = Script(owners=layers, workers=2)
    script.bring_up()
    script.run(10)
    script.do(ScaleAsked(workers=4, by="test"))
    script.run(30)
    assert sorted(len(e) for e in owned(script.fleet.owners).values()) == [1, 1, 1, 2]
    assert all(len(set(ids)) == 1 for ids in script.fleet.owners.values())
    assert "experts_lost" not in script.kinds
    quiet = len(script.notes)
    script.run(20)
    assert len(script.notes) == quiet


def test_scaling_down_empties_before_it_ends() -> None:
    script = four(spares=1)
    script.do(ScaleAsked(workers=2, by="test"))
    told = script.run(30)
    kills = [line for line in told if line.startswith("kill")]
    assert len(kills) == 2
    for line in kills:
        gone = line.split()[1]
        assert any(t.startswith(f"{gone} evict") for t in told[: told.index(line)])
    assert len(script.fleet.placement.workers) == 2
    assert all(script.fleet.placement.owners[1])
    assert "experts_lost" not in script.kinds
    assert sum(m.spare for m in script.fleet.members.values()) == 1


def test_a_drained_worker_is_not_replaced() -> None:
    script = four(spares=1)
    script.do(DrainAsked(names=frozenset({"expert-1"}), by="test"))
    script.run(30)
    assert "expert-1" not in script.fleet.members
    assert script.holds["expert-4"] == ""
    assert script.fleet.workers == 3
    assert "experts_lost" not in script.kinds


def test_a_node_that_ray_drains_is_emptied_and_its_workers_are_replaced_elsewhere() -> None:
    script = Script(owners=FOUR, workers=4)
    script.bring_up({"expert-3": "bad"})
    script.run(10)
    script.do(Nodes(leaving=frozenset({"bad"})))
    script.run(30)
    assert "expert-3" not in script.fleet.members
    assert script.fleet.avoid == {"bad"}
    assert len(script.fleet.placement.workers) == 4
    assert "experts_lost" not in script.kinds


@pytest.mark.parametrize("spares", [0, 1])
def test_a_rolling_restart_loses_nothing(spares: int) -> None:
    script = four(spares=spares)
    pids = {m.member_id: m.pid for m in script.fleet.members.values()}
    script.do(RestartAsked(by="test"))
    told = script.run(200)
    workers = 4 + spares
    launched = [line for line in told if line.startswith("launch")]
    assert [line for line in launched if "router" in line] == ["launch router-1"]
    assert len(launched) == workers + 1
    order = ["launch router-1", "drain router-0", "kill router-0"]
    assert [line for line in told if line in order] == order
    assert all(
        m.pid != pids[m.member_id] for m in script.fleet.members.values() if m.role is Role.EXPERT
    )
    assert "experts_lost" not in script.kinds
    assert "member_died" not in script.kinds
    assert sorted(script.holds.values()) == [*[""] * spares, "1:0-1", "1:2-3", "1:4-5", "1:6-7"]
    assert script.fleet.settled


def test_loads_move_experts_within_the_budget() -> None:
    rules = dataclasses.replace(RULES, loads_bytes=1, redundant=2)
    owners = {1: tuple((f"expert-{e // 2}",) for e in range(8))}
    script = Script(rules, owners=owners, workers=4)
    script.bring_up()
    script.run(20)
    script.notes.clear()
    script.do(Weighed(load=HOT))
    change = script.fleet.change
    assert change is not None
    assert change.reason == "balance"
    assert len(script.pending) == 1
    script.run(60)
    assert "change_done" in script.kinds
    assert "experts_lost" not in script.kinds
    assert len(script.fleet.placement.owners[1][0]) == 2


@pytest.mark.parametrize(("balance", "scale"), [(False, 1.0), (True, 0.05)])
def test_loads_are_left_alone_where_the_config_says_so_and_where_they_tell_nothing(
    balance: bool, scale: float
) -> None:
    script = four()
    script.rules = dataclasses.replace(RULES, balance=balance)
    script.do(Weighed(load=HOT * scale))
    script.run(10)
    assert script.fleet.change is None
    assert script.kinds == []


@pytest.mark.parametrize(("balance", "scale"), [(False, 1.0), (True, 0.05), (True, 0.0)])
@pytest.mark.parametrize("workers", [2, 3, 4])
def test_who_joins_gets_an_equal_part_while_loads_tell_nothing(
    balance: bool, scale: float, workers: int
) -> None:
    rules = dataclasses.replace(RULES, balance=balance)
    experts = 24
    owners = {
        layer: tuple((f"expert-{e % workers}",) for e in range(experts)) for layer in (1, 2, 3)
    }
    script = Script(rules, owners=owners, workers=workers)
    script.bring_up()
    skewed = np.linspace(0.0, 1.0, experts) ** 4 * 1e6
    script.do(Weighed(load=np.tile(skewed, (3, 1)) * scale * 1e-3))
    script.do(ScaleAsked(workers=workers + 1, by="test"))
    script.run(60)
    for row in script.fleet.placement.owners.values():
        parts = [sum(w in ids for ids in row) for w in script.fleet.placement.workers]
        assert max(parts) - min(parts) <= 1
        assert len(parts) == workers + 1
    (begun,) = [note for note in script.notes if note.kind == "change_begun"]
    assert begun.facts["copies"] == 3 * (experts // (workers + 1))
    before, after = map(float, re.findall(r"\d\.\d{3}", begun.text))
    assert before == pytest.approx(workers / (workers + 1), abs=1e-3)
    assert after > before


def test_plans_go_by_the_last_load_that_told_something() -> None:
    script = four()
    script.do(Weighed(load=HOT))
    script.run(20)
    hot = script.fleet.load
    script.do(Weighed(load=HOT * 1e-3))
    assert script.fleet.load is hot
    assert not script.fleet.weighed


def test_what_cannot_be_done_is_refused_before_anything_is() -> None:
    script = four()
    rules = dataclasses.replace(RULES, memory_bytes=2)
    for ask, why in (
        (ScaleAsked(workers=3, by="t"), "cannot hold every expert"),
        (ScaleAsked(workers=0, by="t"), "1 to 4096"),
        (
            DrainAsked(names=frozenset({"expert-9"}), by="t"),
            "or node expert-9",
        ),
        (DrainAsked(names=frozenset({"expert-1"}), by="t"), "nobody else has room"),
        (DrainAsked(names=frozenset({"n"}), by="t"), "last expert workers"),
    ):
        with pytest.raises(ClusterError, match=why):
            permit(script.fleet, ask, rules)


def test_a_worker_that_lost_what_it_held_is_found_out() -> None:
    script = four()
    told = script.do(
        Seen(
            member_id="expert-1",
            report=dataclasses.replace(
                script.fleet.members["expert-1"].report,
                held={1: (2,)},  # type: ignore[type-var]
            ),
        )
    )
    assert "experts_missing" in script.kinds
    assert any("load 1:3" in line for line in told)
    script.run(10)
    assert all(script.fleet.placement.owners[1])
