from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from gateway.merge import merge
from tests.support.deadline import run_async


async def count(end: int, closed: list[int], fail_at: int = -1) -> AsyncGenerator[int, None]:
    try:
        for number in range(end):
            await asyncio.sleep(0)
            if number == fail_at:
                raise ValueError("on purpose")
            yield number
    finally:
        closed.append(end)


def test_all_items_of_all_sources_in_their_order() -> None:
    async def run() -> list[tuple[int, int]]:
        return [item async for item in merge([count(3, []), count(0, []), count(2, [])])]

    items = run_async(run())
    assert [item for place, item in items if place == 0] == [0, 1, 2]
    assert [item for place, item in items if place == 2] == [0, 1]
    assert len(items) == 5


def test_an_error_ends_and_closes_all_sources() -> None:
    closed: list[int] = []

    async def run() -> None:
        async for _ in merge([count(10**9, closed), count(5, closed, fail_at=2)]):
            pass

    with pytest.raises(ValueError, match="on purpose"):
        run_async(run())
    assert sorted(closed) == [5, 10**9]


def test_closing_closes_all_sources() -> None:
    closed: list[int] = []

    async def run() -> None:
        merged = merge([count(10**9, closed), count(10**8, closed)])
        async with contextlib.aclosing(merged):
            await anext(merged)

    run_async(run())
    assert sorted(closed) == [10**8, 10**9]
