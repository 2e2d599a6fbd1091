"""What happened to a fleet, in order: the lines of `orrery events`."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.signals import Note

KINDS = {
    "asked": "Somebody asked for something.",
    "begun": "Every expert worker was ready for the first time.",
    "change_abandoned": "A step failed or a worker died; it is planned anew.",
    "change_begun": "Experts begin to move.",
    "change_done": "Experts have moved.",
    "drain_blocked": "A worker cannot be emptied: nobody has room and the same bits.",
    "epoch_published": "There is a new placement.",
    "experts_lost": "Some experts have no live copy: rows that need them wait.",
    "experts_missing": "A worker does not hold what it should.",
    "experts_recovered": "Every expert has a live copy again; the time is that without.",
    "experts_without_room": "Lost experts wait for their worker, since nobody else has room.",
    "member_died": "A process is gone, silent, failed, or did not come up.",
    "member_draining": "A process takes nothing new.",
    "member_left": "A worker was emptied and ended.",
    "member_ready": "A process serves; the time is that from its start, or of its loading.",
    "member_refused": "A process came back with other bits under `exactness: strict`.",
    "member_restarted": "A worker is started anew because somebody asked for that.",
    "node_leaving": "Ray drains a node: its workers are emptied.",
    "requests_failed": "Requests ended with an error because of a loss.",
    "requests_moved": "Requests lost their router and go on at another one; the time is the pause.",
    "requests_parked": "Requests wait for an expert without a live copy.",
    "requests_resumed": "Parked requests go on; the time is the longest wait.",
    "resumed": "A controller took over from one before it.",
    "scale_refused": "The remaining workers could not hold every expert.",
    "superseded": "A controller of a higher term is at work; this one stands back.",
}
_MOST = 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One event. number: counts up, also over controllers. time: seconds since 1970. term: of the
    controller. For the rest see `cluster.signals.Note`."""

    number: int
    time: float
    term: int
    kind: str
    subject: str
    text: str
    seconds: float | None
    facts: Mapping[str, int | float | str]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Chronicle:
    """The last events, in memory and in a file that the next controller goes on with.

    One thread writes, any may read.
    """

    def __init__(self, path: Path | None, term: int, clock: Callable[[], float]) -> None:
        """`path`: of the file, one JSON object a line; a line that is damaged is left out."""
        self._path = path
        self._term = term
        self._clock = clock
        self._entries: deque[Entry] = deque(_read(path), maxlen=_MOST)
        self._rewrite()

    def add(self, note: Note) -> Entry:
        """Keeps a note as the newest event; a disk that refuses loses only the file."""
        entry = Entry(
            number=self._entries[-1].number + 1 if self._entries else 1,
            time=self._clock(),
            term=self._term,
            kind=note.kind,
            subject=note.subject,
            text=note.text,
            seconds=note.seconds,
            facts=note.facts,
        )
        self._entries.append(entry)
        self._lines += 1
        if self._lines > 2 * _MOST:
            self._rewrite()
        elif self._path is not None:
            self._write("a", [entry])
        return entry

    def entries(self, after: int = 0) -> list[Entry]:
        """Those with higher numbers, oldest first."""
        return [entry for entry in self._entries.copy() if entry.number > after]

    def _rewrite(self) -> None:
        self._lines = len(self._entries)
        if self._path is not None and self._entries:
            self._write("w", list(self._entries))

    def _write(self, mode: str, entries: list[Entry]) -> None:
        if self._path is None:
            return
        try:
            with self._path.open(mode, encoding="utf-8") as file:
                file.writelines(json.dumps(entry.as_json()) + "\n" for entry in entries)
        except OSError as error:
            _log.warning("events are kept in memory alone: %s", error)
            self._path = None


def _read(path: Path | None) -> list[Entry]:
    found: list[Entry] = []
    if path is None or not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found
