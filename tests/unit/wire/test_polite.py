"""Polite work is of the idle class, and nothing else is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from wire.polite import in_thread, politely

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux's scheduler only")


def of_thread() -> tuple[int, int]:
    return os.sched_getscheduler(0), threading.get_ident()


def test_the_work_is_done_by_a_thread_of_the_idle_class() -> None:
    before = os.sched_getscheduler(0)
    policy, thread = politely(of_thread)
    assert policy == os.SCHED_IDLE
    assert thread != threading.get_ident()
    assert os.sched_getscheduler(0) == before
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
    later.start()
    later.join()
    assert found == [before]


def test_what_the_work_raised_is_raised() -> None:
    def fail() -> None:
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        politely(fail)


def test_a_timeout_of_the_work_is_not_taken_for_impatience() -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        politely(fail)


def test_work_that_gets_no_processor_is_hurried_on_where_that_is_allowed() -> None:
    def until_hurried() -> int:
        end = time.monotonic() + 0.5
        while os.sched_getscheduler(0) == os.SCHED_IDLE and time.monotonic() < end:
            time.sleep(0.01)
        return os.sched_getscheduler(0)

    def back() -> bool:
        try:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        except PermissionError:
            return False
        return True

    allowed = politely(back)
    hurried = politely(until_hurried, patience_s=0.05)
    assert hurried == (os.SCHED_OTHER if allowed else os.SCHED_IDLE)


@pytest.mark.parametrize("polite", [False, True])
def test_an_event_loop_goes_on_meanwhile(polite: bool) -> None:
    gate = threading.Event()

    def wait() -> int:
        assert gate.wait(10)
        return os.sched_getscheduler(0)

    async def scene() -> int:
        work = asyncio.create_task(in_thread(polite, wait))
        await asyncio.sleep(0.01)
        gate.set()
        return await work

    assert (asyncio.run(scene()) == os.SCHED_IDLE) is polite


@pytest.mark.parametrize("module", ["experts_service.actor", "router_service.actor"])
def test_an_actor_is_made_without_what_is_heavy(module: str) -> None:
    """Ray imports it in the process's main thread, of which every other thread is a child."""
    code = (
        f"import sys, {module}; print([m for m in ('torch', 'numba', 'grpc') if m in sys.modules])"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert made.stdout.strip() == "[]"
