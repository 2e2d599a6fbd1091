"""The planner's constants that explain what was measured best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from cluster.planner import CostModel, ModelShape
from cluster.planner.layout import Layout
from cluster.planner.predict import predict
from cluster.planner.traffic import traffic

_SWEEPS = 20_000


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A measured step, of one micro-batch in flight; seconds.

    workers_s: processor time of all workers together.
    """

    layout: Layout
    rows: int
    step_s: float
    router_s: float
    workers_s: float


def fit(
    shape: ModelShape, samples: Sequence[Sample], costs: CostModel
) -> tuple[CostModel, float | None]:
    """`costs` with the times that fit, and the experts' bandwidth (None: too fast to be seen).

    Processor times follow from counts that the planner makes too, so its constants are the
    least-squares solution, none below 0, relative errors counting alike. The latency is what the
    measured step takes longer than the prediction without it, a layer, in the median.
    """
    counts = [_Counts.of(shape, sample) for sample in samples]
    router = least_squares(
        np.array([(c.layers, c.rows, c.messages, c.moved) for c in counts]),
        np.array([sample.router_s for sample in samples]),
    )
    worker = least_squares(
        np.array([(c.messages, c.moved, c.expert_bytes) for c in counts]),
        np.array([sample.workers_s for sample in samples]),
    )
    fitted = replace(
        costs,
        router_layer_seconds=float(router[0]),
        router_row_seconds=float(router[1]),
        message_seconds=float(router[2]),
        moved_seconds=float(router[3]),
        worker_message_seconds=float(worker[0]),
        worker_moved_seconds=float(worker[1]),
        latency_seconds=0.0,
    )
    bandwidth = 1.0 / float(worker[2]) if worker[2] > 0 else None
    late = [
        (sample.step_s - _predicted(shape, sample, fitted, bandwidth)) / len(sample.layout)
        for sample in samples
    ]
    return replace(fitted, latency_seconds=max(0.0, median(late))), bandwidth


def least_squares(counts: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """x >= 0 with the least sum of (counts x / seconds - 1)^2, by coordinate descent.

    Args:
        counts: [samples, constants]. seconds: [samples], positive.
    """
    a = counts / seconds[:, None]
    scale = np.maximum(np.sqrt((a * a).sum(axis=0)), 1e-300)
    a = a / scale
    gram, target = a.T @ a, a.sum(axis=0)
    x = np.zeros(counts.shape[1])
    for _ in range(_SWEEPS):
        before = x.copy()
        for k in range(len(x)):
            x[k] = max(0.0, x[k] + (target[k] - gram[k] @ x) / max(gram[k, k], 1e-300))
        if np.abs(x - before).max() < 1e-12:
            break
    return np.asarray(x / scale, np.float64)


@dataclass(frozen=True, kw_only=True)
class _Counts:
    layers: int
    rows: float
    messages: float
    moved: float
    expert_bytes: float

    @classmethod
    def of(cls, shape: ModelShape, sample: Sample) -> _Counts:
        found = [
            count
            for layer, shares in sample.layout.items()
            for count in traffic(shape, layer, shares, sample.rows)
        ]
        return cls(
            layers=len(sample.layout),
            rows=len(sample.layout) * sample.rows,
            messages=sum(count.messages for count in found),
            moved=sum(count.sent + count.received for count in found),
            expert_bytes=sum(count.experts for count in found) * shape.expert_bytes,
        )


def _predicted(
    shape: ModelShape, sample: Sample, costs: CostModel, bandwidth: float | None
) -> float:
    layout = with_bandwidth(sample.layout, bandwidth)
    return predict(shape, layout, replace(costs, rows=sample.rows, micro_batches=1)).step_seconds


def with_bandwidth(layout: Layout, bandwidth: float | None) -> Layout:
    """The same shares, of workers that go through experts at `bandwidth`; None: in no time."""
    speed = float("inf") if bandwidth is None else bandwidth
    return {
        layer: tuple(
            replace(share, worker=replace(share.worker, expert_bandwidth=speed)) for share in shares
        )
        for layer, shares in layout.items()
    }
