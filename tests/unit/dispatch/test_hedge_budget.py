"""No more than a fraction of the messages is sent twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router_service.dispatch.hedge_budget import HedgeBudget


def test_nothing_is_spent_without_a_budget() -> None:
    budget = HedgeBudget(0.0)
    assert not any(budget.take(messages) for messages in range(1000))


@given(st.floats(0.01, 1.0), st.lists(st.integers(0, 50), max_size=200))
def test_the_fraction_holds_at_any_time(fraction: float, gaps: list[int]) -> None:
    budget = HedgeBudget(fraction)
    messages = taken = 0
    for gap in gaps:
        messages += gap
        taken += budget.take(messages)
        assert taken <= fraction * messages + 1e-6


def test_idle_times_are_not_saved_up() -> None:
    budget = HedgeBudget(0.1)
    assert sum(budget.take(100_000) for _ in range(100)) == 10


def test_what_was_given_back_can_be_taken_again() -> None:
    budget = HedgeBudget(0.1)
    assert budget.take(10)
    assert not budget.take(10)
    budget.give_back()
    assert budget.take(10)
