"""Several iterators as one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


async def merge(
    sources: Sequence[AsyncGenerator[Item, None]],
) -> AsyncGenerator[tuple[int, Item], None]:
    """(place of its source, item) as items come; ends when all sources have.

    The first source that raises ends them all, and so does closing this generator; either way
    every source has been closed before it returns.
    """
    queue: asyncio.Queue[tuple[int, Item] | asyncio.Task[None]] = asyncio.Queue()

    async def drain(place: int, source: AsyncGenerator[Item, None]) -> None:
        async with contextlib.aclosing(source):
            async for item in source:
                queue.put_nowait((place, item))

    tasks = [asyncio.create_task(drain(place, source)) for place, source in enumerate(sources)]
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    running = len(tasks)
    try:
        while running:
            entry = await queue.get()
            if isinstance(entry, tuple):
                yield entry
            else:
                running -= 1
                await entry
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def merge_in_turns(
    sources: Sequence[AsyncGenerator[Item, None]],
) -> AsyncGenerator[tuple[int, Item], None]:
    """As `merge`, but each source that goes on has its turn, whichever is first with its item: the
    order is that of the items alone, never that of their times."""
    arrived: list[deque[Item | None]] = [deque() for _ in sources]
    turns = deque(range(len(sources)))
    async with contextlib.aclosing(merge([_with_end(source) for source in sources])) as merged:
        async for place, item in merged:
            arrived[place].append(item)
            while turns and arrived[turns[0]]:
                due = turns.popleft()
                if (next_item := arrived[due].popleft()) is not None:
                    turns.append(due)
                    yield due, next_item


async def _with_end(source: AsyncGenerator[Item, None]) -> AsyncGenerator[Item | None, None]:
    async with contextlib.aclosing(source):
        async for item in source:
            yield item
    yield None
