"""Which owner a row's experts go to."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from router_service.dispatch.live_table import NOBODY, LiveTable


def table(owners: list[list[int]], workers: int) -> LiveTable:
    """One layer; `owners[e]` are the live owners of expert e."""
    live = np.zeros((1, len(owners), workers), np.bool_)
    for expert, ids in enumerate(owners):
        live[0, expert, ids] = True
    return LiveTable.of(live)


def choose(
    made: LiveTable, experts: list[list[int]], load: list[float], without: list[bool] | None = None
) -> list[list[int]]:
    mask = None if without is None else np.array(without)
    return made.choose(0, np.array(experts), np.array(load), mask).tolist()


def test_single_owners_have_no_choice() -> None:
    made = table([[0], [1], []], 2)
    assert choose(made, [[0, 1], [1, 2]], [9, 0]) == [[0, 1], [1, NOBODY]]
    assert [made.is_live(0, e) for e in range(3)] == [True, True, False]


def test_the_least_loaded_replica_is_taken() -> None:
    made = table([[0, 1], [2], [0, 2]], 3)
    assert choose(made, [[0, 1]], [5, 1, 0]) == [[1, 2]]
    assert choose(made, [[0, 1]], [1, 5, 0]) == [[0, 2]]


def test_a_worker_that_holds_the_whole_row_gets_it() -> None:
    made = table([[0, 2], [1, 2], [0, 1, 2]], 3)
    assert choose(made, [[0, 1], [0, 2]], [0, 0, 50]) == [[2, 2], [0, 0]]


def test_excluded_workers_are_not_asked() -> None:
    made = table([[0, 1], [0]], 2)
    assert choose(made, [[0, 1]], [0, 9], [True, False]) == [[1, NOBODY]]
    assert choose(made, [[0, 1]], [0, 9], [True, True]) == [[NOBODY, NOBODY]]


def test_equal_replicas_share_the_experts() -> None:
    # Four workers, of which each expert has two, so that no worker covers a whole row.
    owners = [[e % 4, (e + 1) % 4] for e in range(64)]
    made = table(owners, 4)
    rows = np.arange(64).reshape(8, 8)
    chosen = made.choose(0, rows, np.zeros(4))
    counts = np.bincount(chosen.ravel(), minlength=4)
    assert counts.min() >= 8


def test_of_many_replicas_the_better_of_two_is_taken() -> None:
    made = table([[0, 1, 2, 3]] * 4, 4)
    experts, load = np.array([[0, 1, 2, 3]]), np.array([0.0, 5.0, 1.0, 9.0])
    chosen = [
        set(made.choose(0, experts, load, None, np.array(order)).ravel().tolist())
        for order in ([1, 3, 0, 2], [3, 2, 1, 0], [0, 1, 2, 3])
    ]
    assert chosen == [{1}, {2}, {0}]
    assert made.crowded == (True,)
    assert table([[0, 1]], 2).crowded == (False,)


def test_power_of_two_choices_spreads_the_work() -> None:
    made = table([list(range(8))] * 4, 8)
    rng = np.random.default_rng(3)
    load = np.zeros(8)
    for _ in range(400):
        worker = int(made.choose(0, np.array([[0, 1, 2, 3]]), load, None, rng.permutation(8))[0, 0])
        load[worker] += 4
    assert load.max() - load.min() <= 4 * 4


def test_no_workers_at_all() -> None:
    made = LiveTable.of(np.zeros((2, 3, 0), np.bool_))
    assert choose(made, [[0, 2]], []) == [[NOBODY, NOBODY]]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), workers=st.integers(1, 6))
def test_a_choice_is_a_live_owner_and_always_the_same(seed: int, workers: int) -> None:
    rng = np.random.default_rng(seed)
    live = rng.random((1, 20, workers)) < 0.4
    made = LiveTable.of(live)
    experts = np.sort(np.stack([rng.permutation(20)[:4] for _ in range(9)]), axis=1)
    load = rng.integers(0, 3, workers).astype(np.float64)
    without = rng.random(workers) < 0.2 if seed % 2 else None
    order = rng.permutation(workers) if seed % 3 else None
    chosen = made.choose(0, experts, load, without, order)
    able = live[0] if without is None else live[0] & ~without
    for expert, worker in zip(experts.ravel(), chosen.ravel(), strict=True):
        assert able[expert].any() if worker >= 0 else not able[expert].any()
        if worker >= 0:
            assert able[expert, worker]
    assert np.array_equal(chosen, made.choose(0, experts, load, without, order))
