"""From when on an answer is late, and who is slow."""

from __future__ import annotations

import random

from router_service.dispatch.latency_window import LatencyWindow
from router_service.dispatch_options import DispatchOptions

OPTIONS = DispatchOptions(late_min_s=0.001, late_max_s=1.0, late_factor=4.0, late_quantile=0.95)
SIZE = 5


def windows(number: int, options: DispatchOptions = OPTIONS) -> list[LatencyWindow]:
    made: list[LatencyWindow] = []
    made += [LatencyWindow(options, lambda: made) for _ in range(number)]
    return made


def feed(window: LatencyWindow, seconds: float, number: int = 200, size: int = SIZE) -> int:
    """Latencies around so many seconds; how often the worker turned out to be slow."""
    chance = random.Random(number)
    return sum(window.add(size, seconds * chance.uniform(0.8, 1.2)) for _ in range(number))


def test_the_longest_time_holds_until_latencies_are_known() -> None:
    (window,) = windows(1)
    assert set(window.limits) == {1.0}
    feed(window, 0.01, number=3)
    assert set(window.limits) == {1.0}


def test_a_limit_is_a_multiple_of_a_high_quantile_of_its_size() -> None:
    (window,) = windows(1)
    feed(window, 0.01)
    feed(window, 0.1, size=SIZE + 3)
    assert 4 * 0.01 <= window.limits[SIZE] <= 4 * 0.012
    assert 4 * 0.1 <= window.limits[SIZE + 3] <= 4 * 0.12


def test_twice_the_work_takes_at_most_twice_as_long() -> None:
    (window,) = windows(1)
    feed(window, 0.01)
    known = window.limits[SIZE]
    assert window.limits[: SIZE + 3] == [known] * (SIZE + 1) + [2 * known, 4 * known]
    assert window.limits[-1] == 1.0
    assert window.hedges[SIZE + 1] == window.limits[SIZE + 1]


def test_limits_have_bounds() -> None:
    (window,) = windows(1, DispatchOptions(late_min_s=0.05, late_max_s=1.0))
    feed(window, 0.0001)
    assert window.limits[SIZE] == 0.05
    feed(window, 3.0)
    assert window.limits[SIZE] == 1.0


def test_the_window_forgets() -> None:
    (window,) = windows(1)
    feed(window, 0.1)
    feed(window, 0.01)
    assert window.limits[SIZE] <= 4 * 0.012


def test_a_slow_worker_gets_no_more_time_than_the_others() -> None:
    first, second, third = windows(3)
    feed(first, 0.01)
    feed(second, 0.01)
    assert feed(third, 0.1) > 0
    assert third.limits[SIZE] <= 4 * 0.012
    assert feed(first, 0.01) == 0


def test_where_all_become_slow_nobody_is() -> None:
    first, second = windows(2)
    for seconds in (0.01, 0.1):
        for _ in range(20):
            feed(first, seconds, number=32)
            feed(second, seconds, number=32)
    assert feed(first, 0.1) == 0
    assert first.limits[SIZE] >= 4 * 0.1


def test_a_few_milliseconds_make_nobody_slow() -> None:
    first, second = windows(2)
    feed(first, 0.0002)
    assert feed(second, 0.004) == 0
    assert feed(second, 0.04) > 0


def test_hedges_come_before_a_message_is_late() -> None:
    (window,) = windows(1)
    feed(window, 0.01)
    assert 0.01 <= window.hedges[SIZE] < window.limits[SIZE]
