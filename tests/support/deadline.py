"""Waiting with an end: no test waits without a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

_PAUSE_SECONDS = 0.02


def run_async(work: Awaitable[Result], seconds: float = 60.0) -> Result:
    """Runs `work` on a fresh event loop; raises TimeoutError after `seconds`."""

    async def bounded() -> Result:
        async with asyncio.timeout(seconds):
            return await work

    return asyncio.run(bounded())


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Returns once `condition()` holds; raises TimeoutError naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(_PAUSE_SECONDS)


async def wait_until_async(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """`wait_until` for code that shares its event loop with what it waits for."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        await asyncio.sleep(_PAUSE_SECONDS)
