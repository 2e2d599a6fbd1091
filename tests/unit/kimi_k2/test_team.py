"""Parts of a computation side by side, and how attention is cut into them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from kimi_k2.batch import Segment
from kimi_k2.compiled_layers import CompiledLayers
from kimi_k2.page_walk import plan_walk
from kimi_k2.team import Team
from tests.support.models import random_model
from tests.support.sequences import Runner, run_together
from wire.polite import politely

DEADLINE_S = 10


def run(team: Team, parts: Sequence[Callable[[], Any]]) -> list[Any]:
    async def running() -> list[Any]:
        async with asyncio.timeout(DEADLINE_S):
            return await team.run(parts)

    return asyncio.run(running())


def test_parts_run_side_by_side_and_answer_in_their_order() -> None:
    together = threading.Barrier(3, timeout=DEADLINE_S)

    def part(number: int) -> tuple[int, int]:
        together.wait()
        return number, threading.get_ident()

    answers = run(Team(3), [lambda n=n: part(n) for n in range(3)])
    assert [number for number, _ in answers] == [0, 1, 2]
    threads = {thread for _, thread in answers}
    assert len(threads) == 3
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("threads", [0, 1])
def test_a_team_of_one_needs_no_thread(threads: int) -> None:
    team, here = Team(threads), threading.current_thread()
    assert team.size == team.idle == 1
    assert run(team, [threading.current_thread, threading.current_thread]) == [here, here]


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_is_told_when_every_part_has_ended(failing: int) -> None:
    ended = threading.Event()

    def fail() -> None:
        raise ZeroDivisionError

    def work() -> None:
        assert not ended.wait(0.2)
        ended.set()

    parts = [work, work]
    parts[failing] = fail
    with pytest.raises(ZeroDivisionError):
        run(Team(2), parts)
    assert ended.is_set()


def test_the_loop_goes_on_while_parts_are_computed() -> None:
    going_on = threading.Event()

    async def both() -> list[bool]:
        team = Team(2)
        assert team.idle == 2
        computing = asyncio.ensure_future(team.run([lambda: going_on.wait(DEADLINE_S)]))
        await asyncio.sleep(0)
        assert team.idle == 1
        going_on.set()
        found = await computing
        assert team.idle == 2
        return found

    assert asyncio.run(both()) == [True]


def segment(start: int, position: int, length: int, table: int) -> Segment:
    return Segment(
        start=start,
        length=length,
        position=position,
        block_table=tuple(range(table, table + (position + length + 63) // 64)),
    )


def test_shares_take_about_the_same_time_and_cut_no_segment() -> None:
    decoding = [segment(n, 100, 1, 2 * n) for n in range(9)]
    prompt = segment(9, 0, 70, 18)
    walk = plan_walk([*decoding, prompt], heads=4)
    whole = walk.shares(1)
    assert len(whole) == 1
    assert np.array_equal(whole[0], walk.blocks)
    first, second = walk.shares(2)
    assert np.array_equal(np.concatenate((first, second)), walk.blocks)
    # Nine tokens with two pages each on one side; the prompt, in three blocks, on the other.
    assert len(first) == 9
    assert len(second) == 3
    assert len(plan_walk([prompt], heads=4).shares(2)) == 1
    assert [len(share) for share in plan_walk(decoding, heads=4).shares(3)] == [3, 3, 3]


def test_a_model_that_was_loaded_politely_has_helpers_like_any_other() -> None:
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model, experts = politely(partial(random_model, {"vocab_size": 256}))
    finally:
        torch.set_num_threads(usual)
    if not isinstance(model.math, CompiledLayers):
        pytest.skip("this machine's library computes in a way that no kernel repeats")
    cache = model.new_cache(9)
    runners = [Runner(model, experts, cache=cache, blocks=[n]) for n in range(9)]
    asyncio.run(run_together([(runner, torch.tensor([3])) for runner in runners]))
    helpers = [t for t in threading.enumerate() if t.name.startswith("arithmetic")]
    assert helpers
    assert {os.sched_getscheduler(t.native_id or 0) for t in helpers} == {os.SCHED_OTHER}
