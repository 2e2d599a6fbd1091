"""What `bench_failover` and the chaos suite make of the times at which tokens came."""

from __future__ import annotations

import math

import pytest

from benchmarks.failover.gaps import Gap, around, between, figures, gaps_of, percentile
from benchmarks.failover.phases import Loss, account, rate, seen


def gap(begun: float, ended: float) -> Gap:
    return Gap(begun=begun, ended=ended)


def test_gaps_are_between_tokens_of_one_stream() -> None:
    assert gaps_of([[1.0, 2.0, 5.0], [7.0], []]) == [gap(1.0, 2.0), gap(2.0, 5.0)]


def test_gaps_with_a_moment() -> None:
    gaps = [gap(0, 1), gap(1, 2), gap(2, 9), gap(9, 10)]
    assert around(gaps, [0.5, 3.0, 4.0]) == [gap(0, 1), gap(2, 9)]
    assert around(gaps, [2.0]) == [gap(1, 2), gap(2, 9)]
    assert around(gaps, []) == []
    assert between(gaps, 2, 9) == [gap(1, 2), gap(2, 9)]


@pytest.mark.parametrize(("part", "seconds"), [(0.5, 2), (0.99, 4), (1.0, 4), (0.25, 1)])
def test_percentiles_are_of_what_was_seen(part: float, seconds: float) -> None:
    assert percentile([gap(0, n) for n in (4, 1, 3, 2)], part) == seconds


def test_without_gaps() -> None:
    assert math.isnan(percentile([], 0.99))
    assert figures([]) == "no gaps"


def test_phases_of_a_loss() -> None:
    loss = Loss(killed=100.0, rested=110.0, ended=115.0)
    steady = [gap(n / 10, (n + 1) / 10) for n in range(900, 1000)]
    pause = [gap(100.0, 101.0)]
    slow = [gap(101 + n / 5, 101 + (n + 1) / 5) for n in range(70)]
    found = account(steady + pause + slow, [loss])
    assert found["before"]["tokens_per_s"] == pytest.approx(10, rel=0.05)
    assert found["before"]["longest_ms"] == pytest.approx(100)
    assert found["during"]["longest_ms"] == pytest.approx(1000)
    assert found["after"]["tokens_per_s"] == pytest.approx(5, rel=0.1)
    assert found["gaps with a kill"]["p99_ms"] == pytest.approx(1000)
    moments, rates = rate(steady + pause + slow, [loss], 1.0, -3.0, 3.0)
    assert moments == [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    assert rates[0] == pytest.approx(10, abs=1)
    assert rates[3] <= 1


def test_a_worker_that_is_back_at_once_leaves_no_time_of_restarting() -> None:
    loss = Loss(killed=10.0, rested=11.0, ended=20.0)
    begun, ended = loss.phases["restarting"]
    assert begun == ended
    assert seen([], [(begun, ended)]).tokens_per_s == 0.0
