"""The little that must outlive a controller: the highest term that one has taken, and its fleet.

A file outside the process, so that a controller that starts again is above the one before, and
that one, should it wake up, is refused everywhere, here too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError


class JournalError(ClusterError):
    """The journal cannot be read or written; without it no term is safe."""


def next_term(path: Path) -> int:
    """Takes the next term: one above every term that this journal has given out.

    Durable before it returns, and safe against a second controller doing the same.

    Raises:
        JournalError: the file is not ours, or the disk refuses.
    """
    with _locked(path):
        content = _read(path)
        term = int(content["term"]) + 1
        _write(path, {**content, "term": term})
    return term


def newest_term(path: Path) -> int:
    """The highest term given out so far; 0: none.

    Raises:
        JournalError: as in `next_term`.
    """
    with _locked(path):
        return int(_read(path)["term"])


def keep(path: Path, term: int, run: str, fleet: dict[str, Any]) -> bool:
    """Keeps the fleet of a run; false, and nothing is written, if a higher term was taken.

    Raises:
        JournalError: as in `next_term`.
    """
    with _locked(path):
        if _read(path)["term"] != term:
            return False
        _write(path, {"term": term, "run": run, "fleet": fleet})
    return True


def recall(path: Path, run: str) -> dict[str, Any] | None:
    """The fleet that a former controller of this run kept last; None if there was none.

    Raises:
        JournalError: as in `next_term`.
    """
    with _locked(path):
        content = _read(path)
    fleet = content.get("fleet") if content.get("run") == run else None
    return fleet if isinstance(fleet, dict) else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise JournalError(
            f"cannot keep the journal {path}: {error}; set ORRERY_HOME to a directory that can be "
            "written"
        ) from error


def _write(path: Path, content: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"term": 0}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise JournalError(f"the journal {path} is damaged: {error}; delete it") from error
    term = content.get("term") if isinstance(content, dict) else None
    if not isinstance(term, int) or term < 0:
        raise JournalError(f"the journal {path} holds no term; delete it")
    return dict(content)
