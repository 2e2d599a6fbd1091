"""Text on its way out, held back while it may turn out to be a stop string."""

from __future__ import annotations

from collections.abc import Sequence


class StopText:
    """The router decides that a stop string ended the output; the client must not have seen it.

    So the longest end of the text that begins some stop string waits for what comes next.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str, matched: str = "") -> str:
        """What may go out now.

        Args:
            text: further text.
            matched: the stop string that the router says ended the output with this text; it and
                what follows it is dropped.
        """
        text = self._held + text
        self._held = ""
        if matched and (at := text.find(matched)) >= 0:
            return text[:at]
        keep = self._begun(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self, matched: str = "") -> str:
        """What was held back, when nothing follows it."""
        text = self.push("", matched) + self._held
        self._held = ""
        return text

    def _begun(self, text: str) -> int:
        """Length of the longest end of `text` that is a beginning of a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
