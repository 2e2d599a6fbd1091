"""How many messages may be sent twice."""

from __future__ import annotations

_BURST = 10.0


class HedgeBudget:
    """A token bucket: every message adds a fraction of a token, a hedge takes a whole one.

    Counted from the number of messages when somebody asks, so that a message costs nothing.
    """

    def __init__(self, fraction: float) -> None:
        """`fraction`: of all messages; 0: none."""
        self._fraction = fraction
        self._tokens = 0.0
        self._messages = 0

    def take(self, messages: int) -> bool:
        """Whether one more is allowed, after so many messages since the start."""
        added = self._fraction * (messages - self._messages)
        self._tokens = min(self._tokens + added, _BURST)
        self._messages = messages
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def give_back(self) -> None:
        """What was taken last was of no use."""
        self._tokens += 1.0
