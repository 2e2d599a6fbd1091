"""How long a decode step takes under a layout, from first principles.

With several micro-batches in flight a step takes as long as one micro-batch needs from first to
last layer, or as long as its busiest resource is busy, whichever is more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.planner.fleet import CostModel
from cluster.planner.layout import Layout, Load, Share
from cluster.planner.shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One decode step, in seconds unless named otherwise.

    step_seconds: the whole; the largest of the next four.
    latency_seconds: one micro-batch through all layers.
    router_seconds: the router's processor, all micro-batches.
    link_seconds: the router's link, all micro-batches.
    worker_seconds: the busiest expert worker, all micro-batches.
    messages: sent by the router.
    link_bytes: both ways.
    """

    latency_seconds: float
    router_seconds: float
    link_seconds: float
    worker_seconds: float
    messages: float
    link_bytes: float

    @property
    def step_seconds(self) -> float:
        return max(
            self.latency_seconds, self.router_seconds, self.link_seconds, self.worker_seconds
        )

    @property
    def bound(self) -> str:
        """What a faster step would need more of."""
        parts = {
            "the way of one micro-batch through the layers": self.latency_seconds,
            "the router's processor": self.router_seconds,
            "the router's link": self.link_seconds,
            "the busiest expert worker": self.worker_seconds,
        }
        return max(parts, key=parts.__getitem__)


def predict(
    shape: ModelShape, layout: Layout, costs: CostModel, load: Load | None = None
) -> Prediction:
    """The prediction for one decode step of `costs.rows` rows.

    Experts are assumed to be hit independently, in proportion to `load` (equally without it).
    """
    # More micro-batches than rows would be empty.
    batches = min(costs.micro_batches, costs.rows)
    rows = costs.rows / batches
    latency = messages = sent = received = 0.0
    busy: dict[str, float] = {}
    for layer, shares in layout.items():
        hits = _hits(shape, load[layer] if load else None)
        slowest = 0.0
        for share in shares:
            seconds = _ffn_seconds(shape, share, hits, rows)
            busy[share.worker.worker_id] = busy.get(share.worker.worker_id, 0.0) + seconds
            slowest = max(slowest, seconds)
        asked, out, back = _traffic(shape, shares, hits, rows)
        messages += asked
        sent += out
        received += back
        latency += (
            costs.router_layer_seconds
            + costs.latency_seconds
            + asked * costs.message_seconds
            + (out + back) * shape.row_bytes / costs.link_bandwidth
            + slowest
        )
    link_bytes = batches * (sent + received) * shape.row_bytes
    router = len(layout) * costs.router_layer_seconds + messages * costs.message_seconds
    return Prediction(
        latency_seconds=latency,
        router_seconds=batches * router,
        link_seconds=link_bytes / costs.link_bandwidth,
        worker_seconds=batches * max(busy.values()),
        messages=batches * messages,
        link_bytes=link_bytes,
    )


def _hits(shape: ModelShape, load: Sequence[float] | None) -> Sequence[float] | float:
    """The chance of each expert to be among a row's top-k; one number when all are equal."""
    if load is None or not sum(load):
        return shape.top_k / shape.experts
    scale = shape.top_k / sum(load)
    return [min(1.0, tokens * scale) for tokens in load]


def _ffn_seconds(
    shape: ModelShape, share: Share, hits: Sequence[float] | float, rows: float
) -> float:
    """Time to go through the weights of those experts of the share that some row wants."""
    if isinstance(hits, float):
        wanted = len(share.experts) * _some(hits, rows)
    else:
        wanted = sum(_some(hits[expert], rows) for expert in share.experts)
    return wanted * shape.expert_bytes / share.worker.expert_bandwidth


def _traffic(
    shape: ModelShape, shares: Sequence[Share], hits: Sequence[float] | float, rows: float
) -> tuple[float, float, float]:
    """Messages, rows sent and rows received for one layer of one micro-batch.

    A row goes once to each worker that holds one of its experts. It comes back once, combined,
    from a worker that holds them all; otherwise once for each expert.
    """
    asked = sent = received = 0.0
    for share in shares:
        if isinstance(hits, float):
            part = len(share.experts) / shape.experts
        else:
            part = min(1.0, sum(hits[expert] for expert in share.experts) / shape.top_k)
        wanted = _some(part, shape.top_k)
        asked += _some(wanted, rows)
        sent += rows * wanted
        received += rows * (shape.top_k * part - (shape.top_k - 1) * part**shape.top_k)
    return asked, sent, received


def _some(chance: float, tries: float) -> float:
    """The chance that at least one of `tries` comes true."""
    return float(1.0 - (1.0 - chance) ** tries)
