"""The planner's constants found again in what they predict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.placement.fit import Sample, fit, least_squares
from cluster.planner import CostModel, ModelShape, WorkerSpec
from cluster.planner.grid import parse_grid
from cluster.planner.layout import Layout, lay_out
from cluster.planner.predict import predict
from cluster.planner.traffic import traffic

NANO = ModelShape(
    layers=(1, 2, 3, 4),
    experts=384,
    top_k=8,
    hidden=256,
    activation_bytes=4,
    expert_bytes=3 * 32 * 256 * 4,
)
TRUE = CostModel(
    rows=1,
    micro_batches=1,
    message_seconds=250e-6,
    moved_seconds=2e-6,
    latency_seconds=100e-6,
    link_bandwidth=1e12,
    router_layer_seconds=800e-6,
    router_row_seconds=60e-6,
    worker_message_seconds=400e-6,
    worker_moved_seconds=1e-6,
    cores={"": 2},
)
BANDWIDTH = 8e9


def layout(grid: str) -> Layout:
    workers = [
        WorkerSpec(worker_id=f"expert-{number}", node="", expert_bandwidth=BANDWIDTH)
        for number in range(4)
    ]
    made = lay_out(NANO, workers, parse_grid(grid, 4))
    assert isinstance(made, dict)
    return made


def sample(grid: str, rows: int) -> Sample:
    """As if measured: what the true constants make of it."""
    made = layout(grid)
    counts = [c for layer, shares in made.items() for c in traffic(NANO, layer, shares, rows)]
    workers_s = sum(
        c.messages * TRUE.worker_message_seconds
        + (c.sent + c.received) * TRUE.worker_moved_seconds
        + c.experts * NANO.expert_bytes / BANDWIDTH
        for c in counts
    )
    prediction = predict(NANO, made, replace(TRUE, rows=rows))
    return Sample(
        layout=made,
        rows=rows,
        step_s=prediction.step_seconds,
        router_s=prediction.router_seconds,
        workers_s=workers_s,
    )


def test_the_constants_are_found_again() -> None:
    samples = [sample(grid, rows) for grid in ("1x4", "4x1") for rows in (1, 8, 32)]
    blank = CostModel(
        rows=1,
        micro_batches=1,
        message_seconds=0.0,
        latency_seconds=0.0,
        link_bandwidth=1e12,
        cores={"": 2},
    )
    found, bandwidth = fit(NANO, samples, blank)
    assert bandwidth == pytest.approx(BANDWIDTH, rel=0.01)
    for name in (
        *("message_seconds", "moved_seconds", "router_layer_seconds", "router_row_seconds"),
        *("worker_message_seconds", "worker_moved_seconds", "latency_seconds"),
    ):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.02), name


def test_no_constant_is_negative() -> None:
    counts = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    found = least_squares(counts, np.array([3.0, 2.0, 1.0]))
    assert (found >= 0).all()
    assert found[1] == 0.0
