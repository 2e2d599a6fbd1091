"""What the controller goes by, from the config: its mind's rules, its hands' pace."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rules:
    """misses: unanswered checks in a row until a process is replaced.

    start_timeout_s: from the start of a process until it must be ready.
    strict: a member's successor must have its bits.
    redundant: copies of experts, see `cluster.planner.copies_wanted`.
    expert_bytes: of one expert's weights. memory_bytes: for experts, each worker; None: any.
    bandwidth: bytes of weights that a worker goes through in a second.
    router_drain_s: that a router has to finish what it has begun before it is ended.
    drain_s: from when every router has a placement until experts that left it are dropped.
    balance: whether loads move experts. hysteresis: see `cluster.planner.rebalance`.
    loads_bytes: weights that may be loaded at a time to rebalance; repairs are not held up.
    """

    misses: int
    start_timeout_s: float
    strict: bool = True
    redundant: int | str = 0
    expert_bytes: int = 1
    memory_bytes: int | None = None
    bandwidth: float = 1e9
    router_drain_s: float = 60.0
    drain_s: float = 0.5
    balance: bool = True
    hysteresis: float = 0.03
    loads_bytes: int | None = None

    @property
    def loads(self) -> int | None:
        """Experts that may be loaded at a time; None: any number."""
        if self.loads_bytes is None:
            return None
        return max(1, self.loads_bytes // self.expert_bytes)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often things are looked at, in seconds.

    interval_s: between health checks. timeout_s: of one. weigh_s: between looks at the loads of
    experts and workers. window_s: over which they count. nodes_s: between looks at Ray's nodes.
    """

    interval_s: float
    timeout_s: float
    weigh_s: float = 60.0
    window_s: float = 300.0
    nodes_s: float = 1.0
