"""What the planner has to know of the machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """One expert worker.

    memory_bytes: for expert weights; None: no limit.
    expert_bandwidth: bytes of expert weights it goes through in a second, at the batch sizes that
        are expected, when it has a processor (or a GPU) to itself.
    fingerprint: of its arithmetic; empty while it is not known. One expert's copies must agree.
    on_processors: whether its arithmetic takes the node's processors, as a GPU's does not.
    """

    worker_id: str
    node: str
    expert_bandwidth: float
    memory_bytes: int | None = None
    fingerprint: str = ""
    on_processors: bool = True


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Measured costs and the expected work. Times in seconds, bandwidth in bytes a second.

    rows: tokens in one decode step, spread evenly over the micro-batches.
    micro_batches: forwards in flight at most; while one waits for experts the others go on.
    least_rows: so many rows or fewer are not split between micro-batches.
    message_seconds: router processor time to send one message and take its answer.
    moved_seconds: router processor time a row that is sent, and a row that is received.
    latency_seconds: from a message's sending to its answer, besides everybody's processor time.
    link_bandwidth: of the router's link, each way together.
    router_layer_seconds: the router's own part of one layer of one micro-batch.
    router_row_seconds: what each row adds to that.
    worker_message_seconds, worker_moved_seconds: a worker's processor time a message and a row
        moved, besides going through the experts.
    cores: node to the processors that the processes on it share; a node that is not named has
        one for each.
    router_node: where the router runs.
    """

    rows: int
    micro_batches: int
    message_seconds: float
    latency_seconds: float
    link_bandwidth: float
    router_layer_seconds: float = 0.0
    router_row_seconds: float = 0.0
    moved_seconds: float = 0.0
    worker_message_seconds: float = 0.0
    worker_moved_seconds: float = 0.0
    least_rows: int = 1
    cores: Mapping[str, int] = field(default_factory=dict)
    router_node: str = ""

    @property
    def batches(self) -> int:
        """Micro-batches that are really in flight: more would be empty, or too small."""
        return max(1, min(self.micro_batches, -(-self.rows // self.least_rows)))

    def cores_beside_router(self, node: str) -> int:
        """Processors that are left to the workers of a node that `cores` names.

        The router's threads that send and receive go on while its model waits, so that workers
        beside it share one processor less; measured on 2, where 2 workers took as long as if
        they had one.
        """
        return max(1, self.cores[node] - (node == self.router_node))


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """A worker as a fleet that runs has it.

    live: answers. leaving: serves what it holds, takes nothing new and is to be emptied.
    spare: stands by with nothing loaded; only a repair gives it experts.
    """

    spec: WorkerSpec
    live: bool = True
    leaving: bool = False
    spare: bool = False
