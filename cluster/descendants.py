"""Ending every process that a child started, whoever its parent is by now.

Ray's processes leave our process group and outlive their parents for a moment. On Linux we adopt
orphans (as an init process does), so that each of them is found under us. Elsewhere there is no
such call, and only direct children are known.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


def adopt_orphans() -> None:
    """From now on descendants whose parents end become our children. Linux only; else nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[int]:
    """Ids of every process below this one, nearest first. Empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    level = [os.getpid()]
    while level:
        level = [child for parent in level for child in children.get(parent, [])]
        found += level
    return found


def end_all(grace_s: float) -> int:
    """Asks every descendant to end, and kills what has not after `grace_s`; returns how many
    there were to ask. Reaps them."""
    asked = _signal(descendants(), signal.SIGTERM)
    end = time.monotonic() + grace_s
    while _living() and time.monotonic() < end:
        time.sleep(_POLL_S)
    end = time.monotonic() + grace_s
    while (left := _living()) and time.monotonic() < end:
        _signal(left, signal.SIGKILL)
        time.sleep(_POLL_S)
    return asked


def _living() -> list[int]:
    _reap()
    return descendants()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _signal(pids: list[int], number: signal.Signals) -> int:
    sent = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
            sent += 1
    return sent


def _parents() -> Iterator[tuple[int, int]]:
    root = Path("/proc")
    if not root.is_dir():
        return
    for entry in root.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            # The command in parentheses may hold anything; state and parent follow the last one.
            yield int(entry.name), int(stat.rpartition(")")[2].split()[1])
