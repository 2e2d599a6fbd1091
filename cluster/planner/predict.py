"""How long a decode step takes under a layout.

A step is the time in which every row gets a token. Its micro-batches go round the same stations:
the router, and for each layer the workers that share it, which work side by side. What each
station takes a round follows from counts (`cluster.planner.traffic`) and costs (`CostModel`);
how the rounds get in each other's way, from queueing (`cluster.planner.queueing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.planner.fleet import CostModel
from cluster.planner.layout import Layout, Load, Share
from cluster.planner.queueing import round_seconds
from cluster.planner.shape import ModelShape
from cluster.planner.traffic import Traffic, traffic


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One decode step, in seconds unless named otherwise.

    queued_seconds: a round of each micro-batch, waiting for each other included.
    latency_seconds: one micro-batch through all layers, had it all to itself.
    router_seconds: the router's processor, all micro-batches.
    link_seconds: the router's link, all micro-batches.
    worker_seconds: the busiest expert worker, all micro-batches.
    node_seconds: the processors of the busiest node, all processes on it.
    messages: sent by the router.
    link_bytes: both ways.
    """

    queued_seconds: float
    latency_seconds: float
    router_seconds: float
    link_seconds: float
    worker_seconds: float
    node_seconds: float
    messages: float
    link_bytes: float

    @property
    def step_seconds(self) -> float:
        return max(self.queued_seconds, self.link_seconds, self.node_seconds)

    @property
    def bound(self) -> str:
        """What a faster step would need more of."""
        parts = {
            "the way of one micro-batch through the layers": self.latency_seconds,
            "the router's processor": self.router_seconds,
            "the router's link": self.link_seconds,
            "the busiest expert worker": self.worker_seconds,
            "the processors of one node": self.node_seconds,
        }
        return max(parts, key=parts.__getitem__)


def predict(
    shape: ModelShape, layout: Layout, costs: CostModel, load: Load | None = None
) -> Prediction:
    """The prediction for one decode step of `costs.rows` rows in `costs.batches` micro-batches.

    For each layer of a micro-batch of r rows, with the counts of `traffic`:

        router = router_layer + r * router_row + messages * message + (sent + received) * moved
        worker = messages * worker_message + (sent + received) * worker_moved
                 + experts * expert_bytes / expert_bandwidth
        wire   = latency + (sent + received) * row_bytes / link_bandwidth

    Workers of a layer take as long as the slowest, or, where several share a node's processors,
    as long as those need for the sum; on its own node the router keeps one of them. The step is
    `round_seconds` of the router and of each group of workers with `wire` as delay, but never
    less than the link or a node's processors need.
    """
    batches = costs.batches
    rows = costs.rows / batches
    delay = router = messages = moved = 0.0
    workers: dict[str, float] = {}
    nodes: dict[str, float] = {}
    groups: dict[tuple[str, ...], float] = {}
    for layer, shares in layout.items():
        counts = traffic(shape, layer, shares, rows, load)
        asked = sum(count.messages for count in counts)
        rows_moved = sum(count.sent + count.received for count in counts)
        messages += asked
        moved += rows_moved
        delay += costs.latency_seconds + rows_moved * shape.row_bytes / costs.link_bandwidth
        router += (
            costs.router_layer_seconds
            + rows * costs.router_row_seconds
            + asked * costs.message_seconds
            + rows_moved * costs.moved_seconds
        )
        taken = [_Taken.of(shape, costs, *pair) for pair in zip(shares, counts, strict=True)]
        for share, each in zip(shares, taken, strict=True):
            name, node = share.worker.worker_id, share.worker.node
            workers[name] = workers.get(name, 0.0) + each.seconds
            nodes[node] = nodes.get(node, 0.0) + each.processor_seconds
        group = tuple(share.worker.worker_id for share in shares)
        groups[group] = groups.get(group, 0.0) + _side_by_side(shares, taken, costs)
    nodes[costs.router_node] = nodes.get(costs.router_node, 0.0) + router
    link_bytes = batches * moved * shape.row_bytes
    return Prediction(
        queued_seconds=round_seconds([router, *groups.values()], delay, batches),
        latency_seconds=router + sum(groups.values()) + delay,
        router_seconds=batches * router,
        link_seconds=link_bytes / costs.link_bandwidth,
        worker_seconds=batches * max(workers.values()),
        node_seconds=max(
            (batches * nodes[node] / cores for node, cores in costs.cores.items() if node in nodes),
            default=0.0,
        ),
        messages=batches * messages,
        link_bytes=link_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """A worker's part of a layer, and how much of that its node's processors do."""

    seconds: float
    processor_seconds: float

    @classmethod
    def of(cls, shape: ModelShape, costs: CostModel, share: Share, count: Traffic) -> _Taken:
        around = (
            count.messages * costs.worker_message_seconds
            + (count.sent + count.received) * costs.worker_moved_seconds
        )
        reading = count.experts * shape.expert_bytes / share.worker.expert_bandwidth
        return cls(
            seconds=around + reading,
            processor_seconds=around + (reading if share.worker.on_processors else 0.0),
        )


def _side_by_side(shares: Sequence[Share], taken: Sequence[_Taken], costs: CostModel) -> float:
    together: dict[str, float] = {}
    for share, each in zip(shares, taken, strict=True):
        node = share.worker.node
        together[node] = together.get(node, 0.0) + each.processor_seconds
    shared = (
        seconds / costs.cores_beside_router(node)
        for node, seconds in together.items()
        if node in costs.cores
    )
    return max(*(each.seconds for each in taken), *shared, 0.0)
