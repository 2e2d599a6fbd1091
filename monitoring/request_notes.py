"""What losses did to requests, kept by the process that saw it: the lines of `orrery events` that
name requests come from here.

The controller collects them (`cluster.request_events`). A process that is killed takes those of its
last second with it.
"""

from __future__ import annotations

import dataclasses
import enum
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter

PATH = "/debug/requests"
NAMED = 20
_MOST = 1000


class RequestNoteKind(enum.StrEnum):
    """What became of the requests."""

    PARKED = "requests_parked"
    RESUMED = "requests_resumed"
    MOVED = "requests_moved"
    FAILED = "requests_failed"


@dataclass(frozen=True, kw_only=True)
class RequestNote:
    """One note.

    number: counts up from 1 in its process.
    time: seconds since 1970.
    requests: the first `NAMED` of them; `count` is how many they are.
    layer, expert: that they wait or waited for; None: no expert was the cause.
    text: the cause in words; the same for the same cause.
    seconds: the longest that one of them stood still; None: that is not over.
    """

    number: int
    time: float
    kind: RequestNoteKind
    requests: tuple[str, ...]
    count: int
    layer: int | None = None
    expert: int | None = None
    text: str = ""
    seconds: float | None = None


class RequestNotes:
    """The last notes of one process, and their count as a metric. One thread writes, any may
    read."""

    def __init__(self, counter: Counter, clock: Callable[[], float] = time.time) -> None:
        """`counter`: of requests, with the label `kind`."""
        self._counts = {kind: counter.labels(kind=kind.value) for kind in RequestNoteKind}
        self._clock = clock
        self._notes: deque[RequestNote] = deque(maxlen=_MOST)
        self._number = 0
        self._source = uuid.uuid4().hex[:16]

    def add(
        self,
        kind: RequestNoteKind,
        requests: Sequence[str],
        *,
        missing: tuple[int, int] | None = None,
        text: str = "",
        seconds: float | None = None,
    ) -> None:
        """Keeps a note of now.

        Args:
            missing: (layer, expert) that the requests wait or waited for.
        """
        self._counts[kind].inc(len(requests))
        self._number += 1
        layer, expert = missing or (None, None)
        self._notes.append(
            RequestNote(
                number=self._number,
                time=self._clock(),
                kind=kind,
                requests=tuple(requests[:NAMED]),
                count=len(requests),
                layer=layer,
                expert=expert,
                text=text,
                seconds=seconds,
            )
        )

    def page(self) -> dict[str, Any]:
        """For a debug page; `source` tells one process's notes from those of the next one."""
        notes = [dataclasses.asdict(note) for note in self._notes.copy()]
        return {"source": self._source, "notes": notes}
