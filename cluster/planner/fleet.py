"""What the planner has to know of the machines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """One expert worker.

    memory_bytes: for expert weights; None: no limit.
    expert_bandwidth: bytes of expert weights it goes through in a second, at the batch sizes that
        are expected; workers that share a machine share its bandwidth, so give each its part.
    fingerprint: of its arithmetic; empty while it is not known. One expert's copies must agree.
    """

    worker_id: str
    node: str
    expert_bandwidth: float
    memory_bytes: int | None = None
    fingerprint: str = ""


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Measured costs and the expected work. Times in seconds, bandwidth in bytes a second.

    rows: tokens in one decode step, spread evenly over the micro-batches.
    micro_batches: forwards in flight; while one waits for experts the others go on.
    message_seconds: router processor time to send one message and take its answer.
    latency_seconds: round trip of an empty message.
    link_bandwidth: of the router's link, each way together.
    router_layer_seconds: the router's own part of one layer of one micro-batch.
    """

    rows: int
    micro_batches: int
    message_seconds: float
    latency_seconds: float
    link_bandwidth: float
    router_layer_seconds: float = 0.0
