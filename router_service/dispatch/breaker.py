"""Whether a worker's behaviour gives reason to ask it, or to ask others instead."""

from __future__ import annotations

import enum

_SOUND_ANSWERS = 64


class State(enum.StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Fault(enum.StrEnum):
    """Why a breaker is open."""

    LOST = "lost"
    LATE = "late"
    SLOW = "slow"
    ERROR = "error"
    GARBAGE = "garbage"


class Breaker:
    """A circuit breaker: closed while all is well, open, or half open while the worker is probed.

    One that is open because the worker is late or slow only has others preferred: where there are
    none its answers are as good as ever. Any other fault has the worker refused. No clock, no I/O.

    strikes: openings in a row, with few sound answers in between, but for lost connections; the
        pause before the next probe grows with them.
    reason: what has opened it, for people.
    """

    def __init__(self, open_after: int) -> None:
        """Open at first: nobody has reached the worker. `open_after`: late calls in a row."""
        self.state = State.OPEN
        self.fault = Fault.LOST
        self.reason = "it was not reached yet"
        self.strikes = 0
        self._open_after = open_after
        self._late = 0
        self._sound = 0

    @property
    def closed(self) -> bool:
        return self.state is State.CLOSED

    @property
    def refuses(self) -> bool:
        """Whether the worker is not to be asked at all."""
        return self.state is not State.CLOSED and self.fault not in (Fault.LATE, Fault.SLOW)

    @property
    def quarantined(self) -> bool:
        """Whether the worker has given wrong answers on this connection: then no probe helps."""
        return self.state is not State.CLOSED and self.fault is Fault.GARBAGE

    def answered(self) -> None:
        """A sound answer came in time."""
        self._late = 0
        if self.strikes and self.state is State.CLOSED:
            self._sound += 1
            if self._sound >= _SOUND_ANSWERS:
                self.strikes = 0

    def late(self) -> bool:
        """A call is late; true if that opens it."""
        self._late += 1
        if self.state is State.OPEN or self._late < self._open_after:
            return False
        self.open(Fault.LATE, f"{self._late} messages in a row were not answered in time")
        return True

    def slow(self, reason: str) -> bool:
        """The worker takes longer than others; true if that opens it."""
        if self.state is State.OPEN:
            return False
        self.open(Fault.SLOW, reason)
        return True

    def open(self, fault: Fault, reason: str) -> None:
        """Opens it, or keeps it open for a further reason."""
        if self.quarantined and fault is not Fault.LOST:
            return
        self.state = State.OPEN
        self.fault = fault
        self.reason = reason
        self._sound = 0
        if fault is not Fault.LOST:
            self.strikes += 1

    def probe(self) -> bool:
        """Half opens it; false if there is nothing to probe."""
        if self.state is not State.OPEN or self.quarantined:
            return False
        self.state = State.HALF_OPEN
        return True

    def missed(self, reason: str) -> None:
        """The probe was not answered as it should be: it is open again for what it was before."""
        if self.state is State.HALF_OPEN:
            self.open(self.fault, reason)

    def passed(self) -> None:
        """The probe was answered as it should be; what has happened meanwhile counts more."""
        if self.state is State.HALF_OPEN:
            self.state = State.CLOSED
            self._late = 0
