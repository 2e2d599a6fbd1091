"""Times and limits of the dispatcher."""

from __future__ import annotations

from dataclasses import dataclass

from wire.carriers.carrier import CarrierChoice


@dataclass(frozen=True, kw_only=True)
class DispatchOptions:
    """None of these changes what is computed, only when another worker is asked.

    deadline_s: after which an unanswered message has failed, and its worker with it.
    late_factor, late_quantile: a message that has waited for `late_factor` times this quantile of
        the recent latencies is late: its rows are asked of other owners too, where all of them
        have some.
    late_min_s, late_max_s: bounds of that time; the upper one, which has the last word, is also
        what holds as long as too few latencies are known.
    open_after: late messages in a row after which a worker is avoided where there is another.
    slow_factor, slow_min_s: a worker whose answers take `slow_factor` times as long as those of
        others, and `slow_min_s` longer, is avoided too.
    hedge_fraction: of the messages that may be sent to a second owner although they are not late
        yet, after the `hedge_quantile` of the latencies; 0: none.
    canary_s: between canaries to a worker that is in use; 0: only where there is doubt about it.
    describe_s: deadline of the question whether a worker can be used, and of a probe.
    min_backoff_s, max_backoff_s: between attempts to reach a worker, or to use one again that
        gave reason for doubt; doubles from the one to the other.
    carrier: "auto" uses a local socket where a worker of this host offers one, else the gRPC
        stream; "inline" the stream only; with "local" workers without a socket are not used.
    """

    deadline_s: float = 10.0
    late_factor: float = 4.0
    late_quantile: float = 0.95
    late_min_s: float = 0.05
    late_max_s: float = 1.0
    open_after: int = 3
    slow_factor: float = 4.0
    slow_min_s: float = 0.005
    hedge_fraction: float = 0.0
    hedge_quantile: float = 0.95
    canary_s: float = 5.0
    describe_s: float = 2.0
    min_backoff_s: float = 0.05
    max_backoff_s: float = 1.0
    carrier: CarrierChoice = "auto"

    def __post_init__(self) -> None:
        """Raises ValueError naming a limit that makes no sense."""
        for name in ("late_factor", "slow_factor", "open_after"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("late_quantile", "hedge_quantile"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        for name in ("deadline_s", "late_min_s", "late_max_s", "describe_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return float(min(self.max_backoff_s, self.min_backoff_s * 2.0 ** min(failures, 30)))
