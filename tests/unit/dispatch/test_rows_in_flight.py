"""Rows are split, failed, split again and combined, and come out right whatever happens."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from kimi_k2.combine import combine
from router_service.dispatch.live_table import Ids, LiveTable, Owners
from router_service.dispatch.part import Part
from router_service.dispatch.rows_in_flight import RowsInFlight
from tests.support.deadline import run_async
from wire.errors import UnavailableError

EXPERTS, TOP_K, HIDDEN, LAYER = 12, 3, 5, 7
CPU = torch.device("cpu")


def expert_row(x: Tensor, expert: int) -> Tensor:
    return x * (expert + 1) + expert


class Workers:
    """Answers parts by arithmetic; some of them fail, in an order that the seed gives, and others
    are asked too for what `late` names as a part of all."""

    def __init__(
        self, live: NDArray[np.bool_], failing: set[int], seed: int, late: float = 0.0
    ) -> None:
        self.table = LiveTable.of(live[None])
        self.failing = failing
        self.late = late
        self.seconds = self.won = self.useless = 0
        self.rng = np.random.default_rng(seed)
        self.waiting: list[tuple[RowsInFlight, Part]] = []
        self.sent = 0

    def choose(self, experts: Ids, tried: frozenset[str]) -> int | Owners:
        workers = self.table.live.shape[2]
        without = np.array([str(w) in tried for w in range(workers)]) if tried else None
        return self.table.choose(0, experts, self.rng.random(workers), without)

    def send(self, flight: RowsInFlight, part: Part) -> None:
        self.sent += 1
        self.waiting.append((flight, part))

    def answer_all(self) -> None:
        while self.waiting:
            flight, part = self.waiting.pop(int(self.rng.integers(len(self.waiting))))
            if self.rng.random() < self.late:
                self.seconds += flight.second(part, str(part.worker), self.win)
                self.waiting.append((flight, part))
            elif part.worker in self.failing:
                flight.failed(part, str(part.worker), UnavailableError("lost"))
            else:
                self.useless += not flight.replied(part, self.rows(flight, part))

    def win(self) -> None:
        self.won += 1

    def rows(self, flight: RowsInFlight, part: Part) -> Tensor:
        out = []
        for (row, pairs), whole in zip(part.pairs_by_row(), part.whole, strict=True):
            x = flight.x[row]
            rows = [expert_row(x, int(e)) for e in flight.experts.take(pairs)]
            if whole:
                weights = torch.from_numpy(flight.weights[row : row + 1])
                rows = list(combine(torch.stack(rows)[None], weights))
            out += rows
        return torch.stack(out)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("failures", [0, 1, 2])
@pytest.mark.parametrize("late", [0.0, 0.4])
def test_any_order_of_answers_and_failures(seed: int, failures: int, late: float) -> None:
    run_async(_any_order(seed, failures, late))


async def _any_order(seed: int, failures: int, late: float) -> None:
    rng = np.random.default_rng(seed)
    live = rng.random((EXPERTS, 4)) < 0.6
    live[0] = False
    failing = set(rng.permutation(4)[:failures].tolist())
    workers = Workers(live, failing, seed, late)
    rows = 17
    x = torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(seed))
    experts = np.sort(np.stack([rng.permutation(EXPERTS)[:TOP_K] for _ in range(rows)]), axis=1)
    weights = rng.random((rows, TOP_K), np.float32)
    flight = RowsInFlight(x, experts, weights, LAYER, CPU, workers.choose, workers.send)
    active = np.flatnonzero(rng.random(rows) < 0.8)
    flight.start(active.tolist())
    assert workers.sent <= 4
    workers.answer_all()
    result = await flight.done
    assert workers.won <= workers.seconds

    remaining = live.copy()
    remaining[:, list(failing)] = False
    homeless = ~remaining[experts].any(axis=2)
    parked = homeless.any(axis=1)
    expected = torch.stack(
        [torch.stack([expert_row(x[r], int(e)) for e in experts[r]]) for r in range(rows)]
    )
    whole = combine(expected, torch.from_numpy(weights))
    for row in range(rows):
        if row not in active:
            assert not result.rows[row].any()
            assert row not in result.missing
        elif parked[row]:
            layer, expert = result.missing[row]
            assert layer == LAYER
            assert not remaining[expert].any()
        else:
            assert torch.equal(result.rows[row], whole[row])
            assert row not in result.missing
    if result.missing:
        assert result.parked is not None
        assert result.parked.nonzero()[:, 0].tolist() == sorted(result.missing)
    else:
        assert result.parked is None


def ones(workers: Workers, rows: int) -> tuple[RowsInFlight, list[Part]]:
    """Rows of ones, dispatched, and the parts that were sent."""
    experts = np.tile(np.arange(TOP_K), (rows, 1))
    weights = np.ones((rows, TOP_K), np.float32)
    x = torch.ones(rows, HIDDEN)
    flight = RowsInFlight(x, experts, weights, LAYER, CPU, workers.choose, workers.send)
    flight.start(range(rows))
    return flight, [part for _, part in workers.waiting]


def test_the_first_answer_is_taken_and_the_other_discarded() -> None:
    run_async(_first_answer())


async def _first_answer() -> None:
    for second_wins in (False, True):
        workers = Workers(np.ones((EXPERTS, 3), np.bool_), set(), 0)
        flight, [first] = ones(workers, 2)
        assert flight.second(first, str(first.worker), workers.win)
        second = workers.waiting[-1][1]
        assert second.worker != first.worker
        winner, loser = (second, first) if second_wins else (first, second)
        assert flight.replied(winner, workers.rows(flight, winner))
        assert flight.done.done()
        assert not flight.replied(loser, torch.full_like(workers.rows(flight, loser), 99.0))
        assert not flight.second(loser, str(loser.worker), workers.win)
        assert torch.equal((await flight.done).rows, workers.rows(flight, winner))
        assert workers.won == second_wins


def test_nobody_is_asked_twice_unless_all_rows_have_another_owner() -> None:
    run_async(_not_all())


async def _not_all() -> None:
    live = np.ones((EXPERTS, 2), np.bool_)
    live[TOP_K - 1, 1] = False
    workers = Workers(live, set(), 0)
    flight, [part] = ones(workers, 2)
    assert not flight.second(part, "0", workers.win)
    assert workers.sent == 1
    assert flight.replied(part, workers.rows(flight, part))
    assert flight.done.done()


def test_a_second_that_fails_leaves_the_first_one_waited_for() -> None:
    run_async(_second_fails())


async def _second_fails() -> None:
    workers = Workers(np.ones((EXPERTS, 2), np.bool_), set(), 0)
    flight, [first] = ones(workers, 2)
    assert flight.second(first, str(first.worker), workers.win)
    second = workers.waiting[-1][1]
    assert not flight.failed(second, str(second.worker), UnavailableError("lost"))
    assert not flight.done.done()
    # Both were tried: there is nobody else.
    assert not flight.second(first, str(first.worker), workers.win)
    assert flight.replied(first, workers.rows(flight, first))
    assert (await flight.done).parked is None


def test_rows_are_parked_once_both_have_failed() -> None:
    run_async(_both_fail())


async def _both_fail() -> None:
    workers = Workers(np.ones((EXPERTS, 2), np.bool_), set(), 0)
    flight, [first] = ones(workers, 2)
    assert flight.second(first, str(first.worker), workers.win)
    second = workers.waiting[-1][1]
    assert not flight.failed(first, str(first.worker), UnavailableError("lost"))
    assert flight.failed(second, str(second.worker), UnavailableError("lost"))
    assert set((await flight.done).missing) == {0, 1}


def test_nothing_to_send_is_done_at_once() -> None:
    run_async(_nothing())


async def _nothing() -> None:
    workers = Workers(np.ones((EXPERTS, 2), np.bool_), set(), 0)
    experts = np.tile(np.arange(TOP_K), (2, 1))
    weights = np.ones((2, TOP_K), np.float32)
    x = torch.ones(2, HIDDEN)
    flight = RowsInFlight(x, experts, weights, LAYER, CPU, workers.choose, workers.send)
    flight.start([])
    result = await asyncio.wait_for(flight.done, 5)
    assert not result.rows.any()
    assert result.parked is None


def test_answers_in_and_out_of_inference_mode() -> None:
    run_async(_modes())


async def _modes() -> None:
    """The engine may dispatch in inference mode, while the loop takes answers outside of it."""
    workers = Workers(np.ones((EXPERTS, 2), np.bool_), set(), 0)
    experts = np.tile(np.arange(TOP_K), (2, 1))
    weights = np.ones((2, TOP_K), np.float32)
    with torch.inference_mode():
        x = torch.ones(2, HIDDEN)
        flight = RowsInFlight(x, experts, weights, LAYER, CPU, workers.choose, workers.send)
        flight.start(range(2))
    workers.answer_all()
    result = await flight.done
    result.rows.add_(1)
