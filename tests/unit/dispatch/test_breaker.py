"""What opens a breaker, what closes it, and what no probe can help."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router_service.dispatch.breaker import Breaker, Fault, State


def closed(open_after: int = 3) -> Breaker:
    breaker = Breaker(open_after)
    assert breaker.probe()
    breaker.passed()
    assert breaker.closed
    return breaker


def test_nobody_is_asked_before_the_first_probe() -> None:
    breaker = Breaker(3)
    assert breaker.refuses
    assert breaker.probe()
    assert breaker.refuses
    breaker.passed()
    assert not breaker.refuses


def test_late_calls_open_it_only_in_a_row() -> None:
    breaker = closed()
    assert [breaker.late(), breaker.late()] == [False, False]
    breaker.answered()
    assert [breaker.late(), breaker.late(), breaker.late(), breaker.late()] == [
        *(False, False),
        *(True, False),
    ]
    assert breaker.state is State.OPEN
    assert not breaker.refuses


def test_errors_refuse_where_slowness_only_has_others_preferred() -> None:
    breaker = closed()
    assert breaker.slow("its answers take long")
    assert not breaker.slow("again")
    assert not breaker.closed
    assert not breaker.refuses
    breaker.open(Fault.ERROR, "internal: no memory")
    assert breaker.refuses
    assert breaker.reason == "internal: no memory"


def test_what_happens_during_a_probe_counts_more_than_the_probe() -> None:
    breaker = closed()
    breaker.open(Fault.ERROR, "one")
    assert breaker.probe()
    assert breaker.state is State.HALF_OPEN
    assert not breaker.probe()
    breaker.open(Fault.ERROR, "two")
    breaker.passed()
    assert breaker.state is State.OPEN


def test_a_missed_probe_opens_it_for_what_it_was_open_before() -> None:
    breaker = closed()
    breaker.slow("slow")
    breaker.probe()
    breaker.missed("still slow")
    assert (breaker.state, breaker.fault) == (State.OPEN, Fault.SLOW)
    assert breaker.strikes == 2
    breaker.missed("said twice")
    assert breaker.strikes == 2


def test_a_quarantine_lasts_as_long_as_the_connection() -> None:
    breaker = closed()
    breaker.open(Fault.GARBAGE, "wrong")
    assert breaker.quarantined
    assert not breaker.probe()
    breaker.open(Fault.ERROR, "an error besides")
    assert breaker.quarantined
    breaker.open(Fault.LOST, "gone")
    assert not breaker.quarantined
    assert breaker.refuses
    assert breaker.probe()


def test_strikes_are_forgotten_after_many_sound_answers() -> None:
    breaker = closed()
    for _ in range(3):
        breaker.open(Fault.ERROR, "again")
        breaker.probe()
        breaker.passed()
        breaker.answered()
    assert breaker.strikes == 3
    for _ in range(100):
        breaker.answered()
    assert breaker.strikes == 0


def test_a_lost_connection_is_no_strike() -> None:
    breaker = closed()
    for _ in range(5):
        breaker.open(Fault.LOST, "gone")
    assert breaker.strikes == 0


@given(
    st.lists(st.sampled_from(["late", "answered", "error", "slow", "probe", "passed", "missed"]))
)
def test_it_closes_by_a_passed_probe_only(steps: list[str]) -> None:
    breaker = Breaker(2)
    for step in steps:
        before = breaker.state
        if step == "error":
            breaker.open(Fault.ERROR, "error")
        elif step in ("slow", "missed"):
            getattr(breaker, step)("reason")
        else:
            getattr(breaker, step)()
        if breaker.closed and before is not State.CLOSED:
            assert (before, step) == (State.HALF_OPEN, "passed")
        if before is State.OPEN and breaker.state is State.HALF_OPEN:
            assert step == "probe"
