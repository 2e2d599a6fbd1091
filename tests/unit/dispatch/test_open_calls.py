"""Calls expire after their time, each once, in the order in which they were made."""

from __future__ import annotations

import asyncio
import time

from router_service.dispatch.call import Call
from router_service.dispatch.open_calls import OpenCalls
from tests.support.deadline import run_async, wait_until_async


def call(pairs: int) -> Call:
    return Call(
        layer=0,
        rows=1,
        pairs=pairs,
        replied=lambda rows: True,
        failed=lambda error: True,
        others=lambda won: False,
    )


def test_only_unanswered_calls_expire() -> None:
    run_async(_expire())


async def _expire() -> None:
    expired: list[int] = []

    def take(request_id: int, late: Call, now: float) -> None:
        expired.append(request_id)
        calls.end(request_id)

    calls = OpenCalls(asyncio.get_running_loop(), take)
    for request_id in (1, 2, 3):
        calls.add(request_id, call(pairs=request_id), 0.05)
        await asyncio.sleep(0.01)
    assert calls.pairs == 6
    assert calls.end(2) is not None
    assert calls.end(2) is None
    await wait_until_async(lambda: expired == [1, 3], "both others expire")
    assert calls.pairs == 0
    # The timer starts anew after all calls have ended.
    calls.add(4, call(pairs=1), 0.05)
    await wait_until_async(lambda: expired == [1, 3, 4], "the next one expires")
    calls.stop()


def test_a_blocked_loop_is_not_held_against_a_worker() -> None:
    run_async(_blocked())


async def _blocked() -> None:
    expired: list[int] = []
    loop = asyncio.get_running_loop()
    calls = OpenCalls(loop, lambda request_id, late, now: expired.append(request_id))
    calls.add(1, call(pairs=1), 0.2)
    # The answer comes while the loop is held, and is read once the loop goes on.
    loop.call_later(0.1, lambda: loop.call_soon(calls.end, 1))
    time.sleep(0.3)  # noqa: ASYNC251
    await asyncio.sleep(0.1)
    assert expired == []
    assert len(calls) == 0
    calls.stop()
