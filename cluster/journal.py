"""The little that must outlive a controller: the highest term that one has taken.

A file outside the process, so that a controller that starts again is above the one before, and
that one, should it wake up, is refused everywhere.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from cluster.errors import ClusterError


class JournalError(ClusterError):
    """The journal cannot be read or written; without it no term is safe."""


def next_term(path: Path) -> int:
    """Takes the next term: one above every term that this journal has given out.

    Durable before it returns, and safe against a second controller doing the same.

    Raises:
        JournalError: the file is not ours, or the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            term = _read(path) + 1
            fresh = path.with_suffix(".new")
            with fresh.open("w", encoding="utf-8") as file:
                json.dump({"term": term}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
    except OSError as error:
        raise JournalError(
            f"cannot keep the journal {path}: {error}; set ORRERY_HOME to a directory that can be "
            "written"
        ) from error
    return term


def _read(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise JournalError(f"the journal {path} is damaged: {error}; delete it") from error
    term = content.get("term") if isinstance(content, dict) else None
    if not isinstance(term, int) or term < 0:
        raise JournalError(f"the journal {path} holds no term; delete it")
    return term
