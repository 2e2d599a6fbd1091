from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.merge import merge, merge_in_turns
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


async def late(place: int, pauses: list[int]) -> AsyncGenerator[str, None]:
    for number, pause in enumerate(pauses):
        for _ in range(pause):
            await asyncio.sleep(0)
        yield f"{place}.{number}"


def in_turns(lengths: list[int]) -> list[tuple[int, str]]:
    """The oracle: turn by turn, of sources that are all there at once."""
    return [
        (place, f"{place}.{number}")
        for number in range(max(lengths, default=0))
        for place, length in enumerate(lengths)
        if number < length
    ]


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=5))
def test_turns_are_taken_whatever_the_timing(pauses: list[list[int]]) -> None:
    async def run() -> list[tuple[int, str]]:
        sources = [late(place, each) for place, each in enumerate(pauses)]
        return [item async for item in merge_in_turns(sources)]

    assert run_async(run()) == in_turns([len(each) for each in pauses])


def test_taking_turns_passes_errors_and_closing_on() -> None:
    closed: list[int] = []

    async def run() -> None:
        with pytest.raises(ValueError, match="on purpose"):
            async for _ in merge_in_turns([count(10**9, closed), count(5, closed, fail_at=2)]):
                pass
        async with contextlib.aclosing(merge_in_turns([count(7, closed), count(8, closed)])) as two:
            await anext(two)

    run_async(run())
    assert sorted(closed) == [5, 7, 8, 10**9]
