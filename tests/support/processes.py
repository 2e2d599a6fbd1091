"""Finds what a test session started and did not end.

Processes are known by a variable in their environment, which children inherit, so that those
which a daemon adopted are found too.
"""

from __future__ import annotations

import time

import psutil

MARK = "ORRERY_TEST_SESSION"

# Python's own helper ends by itself once the session's process does.
_ENDS_BY_ITSELF = "multiprocessing.resource_tracker"


def marked(session: str) -> list[psutil.Process]:
    """Living processes that inherited `session`; a zombie is its parent's to reap, not alive."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get(MARK) == session
                and process.status() != psutil.STATUS_ZOMBIE
                and _ENDS_BY_ITSELF not in " ".join(process.cmdline())
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_for_none(session: str, seconds: float) -> list[psutil.Process]:
    """Gives the session's processes `seconds` to end; returns those that did not."""
    end = time.monotonic() + seconds
    while (left := marked(session)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def describe(process: psutil.Process) -> str:
    """One line that names the process for a person."""
    try:
        return f"{process.pid}: {' '.join(process.cmdline())[:160]}"
    except psutil.NoSuchProcess:
        return f"{process.pid}: gone meanwhile"
