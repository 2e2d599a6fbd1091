"""Times and limits of the dispatcher."""

from __future__ import annotations

from dataclasses import dataclass

from wire.carriers.carrier import CarrierChoice


@dataclass(frozen=True, kw_only=True)
class DispatchOptions:
    """None of these changes what is computed, only when another worker is asked.

    deadline_s: after which the rows of an unanswered message go to another worker.
    describe_s: deadline of the question whether a worker can be used.
    min_backoff_s, max_backoff_s: between attempts to reach a worker, or to use one again that
        answered with an error; doubles from the one to the other.
    carrier: "auto" uses a local socket where a worker of this host offers one, else the gRPC
        stream; "inline" the stream only; with "local" workers without a socket are not used.
    """

    deadline_s: float = 10.0
    describe_s: float = 2.0
    min_backoff_s: float = 0.05
    max_backoff_s: float = 1.0
    carrier: CarrierChoice = "auto"

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return float(min(self.max_backoff_s, self.min_backoff_s * 2.0 ** min(failures, 30)))
