"""Each worker gets the canaries of what it holds, and one wrong bit is enough."""

from __future__ import annotations

import asyncio

import numpy as np
import torch
from torch import Tensor

from router_service.dispatch.canaries import Canaries, Verdict
from router_service.dispatch.known_answers import KnownAnswers
from tests.support.deadline import run_async
from wire.codec import decode_request

LAYERS = (1, 2, 5)
X = torch.arange(8.0).view(2, 4)


def right(layer: int, expert: int) -> Tensor:
    return X * layer + expert


def held(*places: tuple[int, int]) -> np.ndarray:
    made = np.zeros((len(LAYERS), 6), np.bool_)
    for place in places:
        made[place] = True
    return made


def test_every_held_expert_has_its_turn() -> None:
    run_async(_turns())


async def _turns() -> None:
    canaries = Canaries(KnownAnswers(X, right), LAYERS, seed=7)
    places = {(0, 1), (0, 4), (2, 0), (2, 3), (2, 5)}
    seen = set()
    for _ in range(12):
        canary = await canaries.next(held(*places))
        assert canary is not None
        assert canary.layer == LAYERS[canary.index]
        assert torch.equal(canary.right, right(canary.layer, canary.expert))
        seen.add((canary.index, canary.expert))
    assert seen == places
    assert await canaries.next(held()) is None


def test_one_bit_is_enough_and_the_expert_stays_accused() -> None:
    run_async(_judge())


async def _judge() -> None:
    canaries = Canaries(KnownAnswers(X, right), LAYERS, seed=0)
    everything = np.ones((len(LAYERS), 6), np.bool_)
    canary = await canaries.next(everything)
    assert canary is not None
    wrong = canary.right.clone()
    wrong.view(torch.int32)[1, 3] ^= 1
    assert canaries.judge(canary, wrong) is Verdict.WRONG
    # Equal as a number, but not as bits.
    assert canary.right[0, 0] == 0.0
    negative = canary.right.clone()
    negative[0, 0] = -0.0
    assert canaries.judge(canary, negative) is Verdict.WRONG
    for _ in range(2):
        again = await canaries.next(everything)
        assert again is not None
        assert (again.index, again.expert) == (canary.index, canary.expert)
    assert canaries.judge(canary, canary.right.clone()) is Verdict.RIGHT
    after = await canaries.next(everything)
    assert after is not None
    assert (after.index, after.expert) != (canary.index, canary.expert)


def test_an_answer_is_computed_once() -> None:
    run_async(_once())


async def _once() -> None:
    asked: list[tuple[int, int]] = []

    def compute(layer: int, expert: int) -> Tensor:
        asked.append((layer, expert))
        return right(layer, expert)

    known = KnownAnswers(X, compute)
    await asyncio.gather(*(known.answer(1, 3) for _ in range(5)), known.answer(2, 3))
    assert sorted(asked) == [(1, 3), (2, 3)]


def test_an_answer_that_cannot_be_computed_accuses_nobody() -> None:
    run_async(_unknown())


async def _unknown() -> None:
    def compute(layer: int, expert: int) -> Tensor:
        raise OSError("the disk is gone")

    canaries = Canaries(KnownAnswers(X, compute), LAYERS, seed=0)
    assert await canaries.next(held((0, 1))) is None


def test_its_message_asks_for_single_rows() -> None:
    run_async(_message())


async def _message() -> None:
    canary = await Canaries(KnownAnswers(X, right), LAYERS, seed=0).next(held((2, 4)))
    assert canary is not None
    request = decode_request(canary.message(9, term=3))
    assert (request.request_id, request.epoch.term, request.layer) == (9, 3, 5)
    assert request.experts.tolist() == [4, 4]
    assert not request.combine.any()
    assert request.answer_rows == len(X)
    assert torch.equal(request.x, X)
