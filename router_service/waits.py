"""Requests that wait for lost experts, as notes for operators."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from monitoring.request_notes import RequestNoteKind, RequestNotes
from router_service.sequence import Sequence


@dataclass(frozen=True)
class _Wait:
    missing: tuple[int, int]
    since: float


class Waits:
    """Notes when a request begins to wait, goes on, or ends with an error because of the wait.

    One that finds a further expert lost before it has computed anything still waits: that is one
    wait, noted with the first expert.
    """

    def __init__(self, notes: RequestNotes) -> None:
        self._notes = notes
        self._waiting: dict[int, _Wait] = {}

    def look(self, sequences: Iterable[Sequence], now: float) -> None:
        """Looks at the sequences of a micro-batch that has been settled."""
        parked: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        resumed: defaultdict[tuple[int, int], list[tuple[str, float]]] = defaultdict(list)
        for seq in sequences:
            if seq.missing is not None and seq.number not in self._waiting:
                self._waiting[seq.number] = _Wait(seq.missing, now)
                parked[seq.missing].append(seq.request.request_id)
            elif seq.parked_at is None and (wait := self._waiting.pop(seq.number, None)):
                resumed[wait.missing].append((seq.request.request_id, now - wait.since))
        for missing, names in parked.items():
            self._notes.add(RequestNoteKind.PARKED, names, missing=missing)
        for missing, ends in resumed.items():
            longest = max(seconds for _, seconds in ends)
            names = [name for name, _ in ends]
            self._notes.add(RequestNoteKind.RESUMED, names, missing=missing, seconds=longest)

    def ended(self, seq: Sequence, now: float, *, failed: bool) -> None:
        """Forgets a request; `failed`: it ended with an error."""
        wait = self._waiting.pop(seq.number, None)
        if wait is not None and failed:
            self._notes.add(
                RequestNoteKind.FAILED,
                [seq.request.request_id],
                missing=wait.missing,
                seconds=now - wait.since,
            )
