"""balancedness = mean load / max load."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.balancedness import balancedness


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([5, 5, 5], 1.0),
        ([4, 0, 0, 0], 0.25),
        ([1, 3], 2 / 3),
        ([0, 0], 1.0),
        ([], 1.0),
        ([7], 1.0),
    ],
)
def test_known_values(loads: list[float], expected: float) -> None:
    assert balancedness(loads) == pytest.approx(expected)


def test_a_negative_load_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        balancedness([1, -1])


@given(st.lists(st.integers(min_value=0, max_value=10**9), min_size=1, max_size=400))
def test_bounds_and_order_do_not_matter(loads: list[int]) -> None:
    value = balancedness(loads)
    assert 1 / len(loads) <= value + 1e-12
    assert value <= 1 + 1e-12
    assert balancedness(loads[::-1]) == pytest.approx(value)
