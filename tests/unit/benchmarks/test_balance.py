"""What `bench_balance` makes of workers' counters."""

from __future__ import annotations

import pytest

from benchmarks.balance.counted import evenness


def test_evenness_is_of_what_was_computed_in_between() -> None:
    before = {"a": {1: 100.0, 2: 0.0}, "b": {1: 0.0, 2: 50.0}}
    after = {"a": {1: 130.0, 2: 10.0}, "b": {1: 10.0, 2: 80.0}}
    seen = evenness(before, after)
    assert seen.layers == {1: pytest.approx(2 / 3), 2: pytest.approx(2 / 3)}
    assert seen.fleet == 1.0
    assert seen.worst == pytest.approx(2 / 3)
    assert seen.pairs == 80.0


def test_a_worker_without_experts_of_a_layer_counts_as_idle() -> None:
    seen = evenness({"a": {1: 0.0}, "b": {}}, {"a": {1: 5.0}, "b": {}})
    assert seen.layers == {1: 0.5}
    assert seen.fleet == 0.5
