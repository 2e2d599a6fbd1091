"""The mind asks the planner, and takes only answers to what it still asks."""

from __future__ import annotations

from cluster.reconcile import advance
from cluster.signals import Answered, Died, Ponder, Tick
from tests.support.fleet_script import four


def test_an_answer_to_what_nobody_asks_any_more_is_not_taken() -> None:
    """While the planner thinks of expert-2's loss expert-3 falls too."""
    script = four(spares=0)
    script.fleet, asked = advance(
        script.fleet, Died(member_id="expert-2", error="gone"), script.now, script.rules
    )
    (late,) = (a.question for a in asked if isinstance(a, Ponder))
    assert script.fleet.waits
    assert script.fleet.change is None
    script.fleet, asked = advance(
        script.fleet, Died(member_id="expert-3", error="gone"), script.now, script.rules
    )
    (newest,) = (a.question for a in asked if isinstance(a, Ponder))
    assert script.do(Answered(question=late, answer=late.find())) == []
    assert script.fleet.change is None
    told = script.do(Answered(question=newest, answer=newest.find()))
    assert sorted(told) == ["expert-0 load 1:4,6", "expert-1 load 1:5,7"]
    assert not script.fleet.waits


def test_the_same_is_not_asked_twice() -> None:
    script = four(spares=0)
    script.fleet, asked = advance(
        script.fleet, Died(member_id="expert-2", error="gone"), script.now, script.rules
    )
    assert sum(isinstance(a, Ponder) for a in asked) == 1
    for _ in range(3):
        script.now += 0.25
        script.fleet, asked = advance(script.fleet, Tick(), script.now, script.rules)
        assert not any(isinstance(a, Ponder) for a in asked)
