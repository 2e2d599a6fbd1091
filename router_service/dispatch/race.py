"""The same rows asked of several workers, of which the first to answer is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Entry = TypeVar("Entry")
Answer = TypeVar("Answer")


@dataclass(kw_only=True, eq=False, slots=True)
class Attempt(Generic[Entry, Answer]):
    """All the rows of a race, asked of one worker or shared out to several.

    rest: entries without an answer.
    won: called if this is the first to be complete.
    """

    race: Race[Entry, Answer]
    rest: int
    won: Callable[[], None]
    answers: list[tuple[Entry, Answer]] = field(default_factory=list)
    failed: bool = False


@dataclass(kw_only=True, eq=False, slots=True)
class Race(Generic[Entry, Answer]):
    """Attempts run until one is complete, or all have failed.

    first: what was asked for before there was a race; it names all the rows.
    tried: ids of workers that were asked.
    running: attempts that may still win.
    """

    first: Entry
    tried: frozenset[str]
    running: int = 0
    decided: bool = False

    def enter(self, entries: int, won: Callable[[], None]) -> Attempt[Entry, Answer]:
        """A further attempt, of so many entries."""
        self.running += 1
        return Attempt(race=self, rest=entries, won=won)

    def answered(
        self, attempt: Attempt[Entry, Answer], entry: Entry, answer: Answer
    ) -> Iterable[tuple[Entry, Answer]] | None:
        """All answers of the attempt if it has won by this one; none if it goes on; None if the
        answer is of no use any more."""
        if self.decided or attempt.failed:
            return None
        attempt.answers.append((entry, answer))
        attempt.rest -= 1
        if attempt.rest:
            return ()
        self.decided = True
        attempt.won()
        return attempt.answers

    def lost(self, attempt: Attempt[Entry, Answer], worker_id: str) -> bool:
        """The attempt cannot be completed, because of a worker; true if all have failed now."""
        self.tried |= {worker_id}
        if self.decided or attempt.failed:
            return False
        attempt.failed = True
        self.running -= 1
        self.decided = not self.running
        return self.decided
