"""Notes of requests that wait for lost experts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from prometheus_client import CollectorRegistry

from monitoring.metrics import RouterMetrics
from monitoring.request_notes import RequestNotes
from router_service.sequence import Sequence
from router_service.waits import Waits


@dataclass
class Request:
    request_id: str


@dataclass
class Parked:
    """What `Waits` looks at of a sequence."""

    number: int
    missing: tuple[int, int] | None = None
    parked_at: float | None = None
    request: Request = field(default_factory=lambda: Request(""))

    def __post_init__(self) -> None:
        self.request = Request(f"r{self.number}")

    def park(self, layer: int, expert: int) -> None:
        self.missing, self.parked_at = (layer, expert), self.parked_at or 1.0

    def unpark(self) -> None:
        """The expert is back; nothing is computed yet."""
        self.missing = None

    def progress(self) -> None:
        self.parked_at = None


class Told:
    def __init__(self) -> None:
        self._notes = RequestNotes(RouterMetrics(CollectorRegistry()).request_notes)
        self.waits = Waits(self._notes)

    def look(self, *sequences: Parked, now: float) -> None:
        self.waits.look([cast("Sequence", sequence) for sequence in sequences], now)

    def end(self, sequence: Parked, *, now: float, failed: bool) -> None:
        self.waits.ended(cast("Sequence", sequence), now, failed=failed)

    @property
    def notes(self) -> list[Any]:
        return [
            (note["kind"], note["requests"], (note["layer"], note["expert"]), note["seconds"])
            for note in self._notes.page()["notes"]
        ]


def test_those_that_miss_the_same_expert_are_one_note() -> None:
    told = Told()
    rows = [Parked(number) for number in range(4)]
    for row in rows[:2]:
        row.park(2, 5)
    rows[2].park(3, 1)
    told.look(*rows, now=10.0)
    for row in rows[:2]:
        row.unpark()
        row.progress()
    told.look(*rows[:2], now=12.5)
    assert told.notes == [
        ("requests_parked", ("r0", "r1"), (2, 5), None),
        ("requests_parked", ("r2",), (3, 1), None),
        ("requests_resumed", ("r0", "r1"), (2, 5), 2.5),
    ]


def test_a_wait_for_one_expert_after_the_other_is_one_wait() -> None:
    told, row = Told(), Parked(0)
    row.park(2, 5)
    told.look(row, now=10.0)
    row.unpark()
    row.park(2, 6)
    told.look(row, now=11.0)
    row.unpark()
    row.progress()
    told.look(row, now=12.0)
    row.park(2, 5)
    told.look(row, now=13.0)
    assert [note[0] for note in told.notes] == [
        "requests_parked",
        "requests_resumed",
        "requests_parked",
    ]
    assert told.notes[1][3] == 2.0


def test_only_a_wait_that_ends_in_an_error_is_a_failure() -> None:
    told, rows = Told(), [Parked(number) for number in range(3)]
    for row in rows[:2]:
        row.park(2, 5)
    told.look(*rows, now=10.0)
    told.end(rows[0], now=70.0, failed=True)
    told.end(rows[1], now=71.0, failed=False)
    told.end(rows[2], now=72.0, failed=True)
    assert told.notes[1:] == [("requests_failed", ("r0",), (2, 5), 60.0)]
