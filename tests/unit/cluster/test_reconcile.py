"""The controller's mind, step by step."""

from __future__ import annotations

import dataclasses

import pytest

from cluster.fleet import Phase
from cluster.signals import Died, Missed, Tick
from tests.support.fleet_script import OWNERS, RULES, Script
from wire.placement import Epoch


def test_from_nothing_to_settled() -> None:
    script = Script()
    assert script.do(Tick()) == ["launch expert-0", "launch expert-1", "launch router-0"]
    assert script.do(Tick()) == []
    assert script.launched("router-0", 3) == []
    assert script.launched("expert-0", 1) == []
    assert script.seen("expert-0", "loading") == []
    assert script.seen("expert-0") == []
    assert script.launched("expert-1", 2) == []
    assert script.seen("expert-1") == ["publish 7.1 to router-0: expert-0 expert-1"]
    assert not script.fleet.served
    assert script.seen("router-0", epoch=Epoch(term=0, counter=0)) == [
        "publish 7.1 to router-0: expert-0 expert-1"
    ]
    assert script.seen("router-0") == []
    assert script.fleet.served
    assert script.fleet.settled
    assert script.fleet.placement.owners == OWNERS


def test_a_lost_workers_experts_go_to_another_and_come_home() -> None:
    script = Script()
    script.bring_up()
    assert script.fleet.settled
    assert script.do(Died(member_id="expert-1", error="gone")) == [
        "kill expert-1",
        "publish 7.2 to router-0: expert-0",
        "expert-0 load 1:2-3",
    ]
    assert script.fleet.placement.owners == {1: (("expert-0",), ("expert-0",), (), ())}
    assert script.fleet.members["expert-1"].phase is Phase.PENDING
    assert script.tick() == ["launch expert-1"]
    assert script.fleet.members["expert-1"].experts == {1: (2, 3)}
    assert script.answer() == ["publish 7.3 to router-0: expert-0"]
    assert script.fleet.placement.owners == {1: (("expert-0",),) * 4}
    assert script.seen("router-0") == []
    assert script.launched("expert-1", 9) == []
    assert script.seen("expert-1", "loading") == []
    assert script.seen("expert-1") == ["publish 7.4 to router-0: expert-0 expert-1"]
    assert script.fleet.placement.owners == OWNERS
    assert script.fleet.placement.workers["expert-1"].address == "h:9"
    assert script.fleet.members["expert-1"].restarts == 1
    assert script.tick(10) == []
    assert script.seen("router-0") == []
    assert script.tick(0.4) == []
    assert script.tick(0.2) == ["expert-0 evict 1:2-3"]
    assert script.answer() == []
    assert script.holds == {"expert-0": "1:0-1", "expert-1": "1:2-3"}
    assert script.fleet.change is None
    assert [n.seconds for n in script.notes if n.kind == "experts_recovered"] == [0.0]


def test_a_silent_worker_is_replaced_after_so_many_misses() -> None:
    script = Script()
    script.bring_up()
    missed = Missed(member_id="expert-0", error="deadline")
    assert script.do(missed) == []
    assert script.do(missed) == []
    assert script.seen("expert-0") == []
    assert script.do(missed) == []
    assert script.do(missed) == []
    assert script.do(missed) == [
        "kill expert-0",
        "publish 7.2 to router-0: expert-1",
        "expert-1 load 1:0-1",
    ]
    assert "did not answer 3" in script.fleet.members["expert-0"].error


def test_a_worker_that_a_router_suspects_is_replaced() -> None:
    script = Script()
    script.bring_up()
    pid = script.fleet.members["expert-0"].pid
    assert script.seen("router-0", suspects={"expert-0": (pid, "wrong in layer 1")}) == [
        "kill expert-0",
        "publish 7.2 to router-0: expert-1",
        "expert-1 load 1:0-1",
    ]
    assert "wrong in layer 1" in script.fleet.members["expert-0"].error
    assert [note.kind for note in script.notes].count("member_died") == 1
    # Routers may say so once more, of the process that is gone.
    stale = {"expert-0": (pid, "wrong in layer 1")}
    assert "kill expert-0" not in script.seen("router-0", suspects=stale)
    script.tick()
    script.launched("expert-0", 9)
    script.seen("expert-0", held={1: (0, 1)})
    assert "kill expert-0" not in script.seen("router-0", suspects=stale)
    assert script.fleet.members["expert-0"].restarts == 1


def test_a_suspect_that_nobody_knows_is_passed_over() -> None:
    script = Script()
    script.bring_up()
    assert script.seen("router-0", suspects={"expert-9": (1, "wrong")}) == []


def test_failures_wait_longer_each_time() -> None:
    script = Script()
    script.do(Tick())
    waits = []
    for _ in range(5):
        assert script.do(Died(member_id="expert-0", error="no")) == ["kill expert-0"]
        waits.append(script.fleet.members["expert-0"].not_before - script.now)
        script.now += waits[-1]
        assert script.do(Tick()) == ["launch expert-0"]
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0]


def test_the_wait_has_a_bound_however_often_it_failed() -> None:
    script = Script()
    script.do(Tick())
    for _ in range(1100):
        script.do(Died(member_id="expert-0", error="no"))
        script.now = script.fleet.members["expert-0"].not_before
        script.do(Tick())
    script.do(Died(member_id="expert-0", error="no"))
    assert script.fleet.members["expert-0"].not_before - script.now == 30.0


def test_a_member_that_flaps_waits_until_it_has_been_ready_for_a_while() -> None:
    script = Script()
    script.bring_up()
    for wait in (0.0, 1.0, 2.0):
        script.do(Died(member_id="expert-0", error="gone"))
        assert script.fleet.members["expert-0"].not_before - script.now == wait
        script.now += wait
        script.do(Tick())
        script.launched("expert-0", 5)
        script.seen("expert-0")
        script.now += 10
        script.seen("expert-0")
    script.now += 60
    script.seen("expert-0")
    assert script.fleet.members["expert-0"].failures == 0
    script.do(Died(member_id="expert-0", error="gone"))
    assert script.fleet.members["expert-0"].not_before == script.now


def test_it_does_not_start_before_its_time() -> None:
    script = Script()
    script.do(Tick())
    script.do(Died(member_id="expert-0", error="no"))
    script.do(Tick())
    script.do(Died(member_id="expert-0", error="no"))
    script.now += 0.9
    assert script.do(Tick()) == []
    script.now += 0.2
    assert script.do(Tick()) == ["launch expert-0"]


def test_loading_has_an_end() -> None:
    script = Script()
    script.do(Tick())
    script.launched("expert-0", 1)
    script.launched("expert-1", 2)
    script.launched("router-0", 3)
    script.seen("expert-1")
    script.seen("router-0")
    script.now += 61
    assert script.do(Tick()) == ["kill expert-0"]
    assert script.fleet.members["expert-0"].error == "was not ready after 61 s"


def test_a_restarted_router_gets_the_placement() -> None:
    script = Script()
    script.bring_up()
    assert script.do(Died(member_id="router-0", error="gone")) == ["kill router-0"]
    assert script.do(Tick()) == ["launch router-0"]
    assert script.launched("router-0", 8) == []
    assert script.seen("router-0", "loading", epoch=Epoch(term=0, counter=0)) == [
        "publish 7.1 to router-0: expert-0 expert-1"
    ]


def test_a_worker_that_says_it_failed_is_replaced() -> None:
    script = Script()
    script.bring_up()
    assert script.seen("expert-0", "failed", error="tensor missing") == [
        "kill expert-0",
        "publish 7.2 to router-0: expert-1",
        "expert-1 load 1:0-1",
    ]
    assert script.fleet.members["expert-0"].error == "tensor missing"


def test_a_draining_worker_leaves_the_placement_and_lives() -> None:
    script = Script()
    script.bring_up()
    assert script.seen("expert-0", "draining") == [
        "publish 7.2 to router-0: expert-1",
        "expert-1 load 1:0-1",
    ]
    assert script.seen("expert-0") == ["publish 7.3 to router-0: expert-0 expert-1"]


def test_strict_refuses_a_successor_with_other_bits() -> None:
    script = Script()
    script.bring_up()
    script.do(Died(member_id="expert-0", error="gone"))
    script.do(Tick())
    script.launched("expert-0", 5)
    assert script.seen("expert-0", fingerprint="g") == ["kill expert-0"]
    member = script.fleet.members["expert-0"]
    assert member.phase is Phase.DOWN
    assert "exactness" in member.error
    assert script.do(Tick()) == []


def test_relaxed_takes_it() -> None:
    script = Script(dataclasses.replace(RULES, strict=False))
    script.bring_up()
    script.do(Died(member_id="expert-0", error="gone"))
    script.do(Tick())
    script.launched("expert-0", 5)
    assert script.seen("expert-0", fingerprint="g") == [
        "publish 7.3 to router-0: expert-0 expert-1"
    ]


@pytest.mark.parametrize("name", ["expert-0", "router-0"])
def test_a_superseded_controller_does_nothing_more(name: str) -> None:
    script = Script()
    script.bring_up()
    assert script.seen(name, term=7) == []
    assert not script.fleet.superseded
    assert script.seen(name, term=8) == []
    assert script.fleet.superseded
    assert script.do(Died(member_id="expert-0", error="gone")) == []
    assert script.do(Tick()) == []


def test_late_news_of_a_process_that_is_being_replaced_is_ignored() -> None:
    script = Script()
    script.bring_up()
    script.do(Died(member_id="expert-0", error="gone"))
    assert script.seen("expert-0") == []
    assert script.do(Died(member_id="expert-0", error="gone")) == []
    assert script.fleet.members["expert-0"].restarts == 1


def test_a_worker_of_another_checkpoint_never_serves() -> None:
    script = Script()
    script.do(Tick())
    script.launched("expert-0", 1)
    script.launched("expert-1", 2)
    assert script.seen("expert-0", model_hash="aaaa") == []
    assert script.seen("expert-1", model_hash="bbbb") == ["kill expert-1"]
    assert "checkpoint bbbb, that of expert-0 holds aaaa" in script.fleet.members["expert-1"].error


def test_one_that_loads_may_be_slow_to_answer() -> None:
    script = Script()
    script.bring_up()
    script.do(Died(member_id="expert-0", error="gone"))
    script.do(Tick())
    script.launched("expert-0", 5)
    missed = Missed(member_id="expert-0", error="silence")
    assert [script.do(missed) for _ in range(10 * RULES.misses - 1)] == [[]] * 29
    assert script.do(missed)[0] == "kill expert-0"
