"""Work that leaves the processors to others: what a process has to do before anybody waits for it.

Importing torch, proving the arithmetic and reading a checkpoint take seconds of processor time, and
on a machine that serves every one of them would be felt between tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


# On a machine without a free moment the work is hurried on after so long, where that is allowed.
_PATIENCE_S = 20.0


def politely(work: Callable[[], Result], patience_s: float = _PATIENCE_S) -> Result:
    """Blocks until `work` is done by a thread that runs only where nobody else wants to.

    Only that thread, and those that it starts, are of the scheduler's idle class (Linux; elsewhere
    nothing is). It ends with the work, since a thread without privileges cannot leave the class:
    whatever is to serve later has to be started by another thread.

    Args:
        patience_s: after which the thread is taken out of the class, if this process may do that.

    Raises:
        Exception: what `work` raised.
    """
    done: Future[Result] = Future()

    def run() -> None:
        _set_class(0, "SCHED_IDLE")
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001
            # It belongs to whoever waits.
            done.set_exception(error)

    thread = threading.Thread(target=run, name="polite", daemon=True)
    thread.start()
    try:
        return done.result(patience_s)
    except TimeoutError:
        if done.done():
            raise
    _set_class(thread.native_id or 0, "SCHED_OTHER")
    return done.result()


async def in_thread(polite: bool, work: Callable[[], Result]) -> Result:
    """`work` in a thread, politely or as others do."""
    return await (asyncio.to_thread(politely, work) if polite else asyncio.to_thread(work))


def _set_class(thread: int, name: str) -> None:
    """0: of the calling thread."""
    if hasattr(os, name):
        # A sandbox may forbid it; then the work is done as any other.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, getattr(os, name), os.sched_param(0))
