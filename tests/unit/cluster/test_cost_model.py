"""The parts of a prediction: counts, queues, shared processors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.planner import CostModel, ModelShape, WorkerSpec, choose_in_flight, plan
from cluster.planner.grid import parse_grid
from cluster.planner.layout import Layout, lay_out
from cluster.planner.predict import predict
from cluster.planner.queueing import round_seconds
from cluster.planner.traffic import traffic

SHAPE = ModelShape(
    layers=(1, 2, 3, 4), experts=64, top_k=8, hidden=256, activation_bytes=4, expert_bytes=100_000
)
COSTS = CostModel(
    rows=32,
    micro_batches=1,
    message_seconds=200e-6,
    latency_seconds=0.0,
    link_bandwidth=1e12,
    router_layer_seconds=500e-6,
    worker_message_seconds=400e-6,
)


def workers(count: int = 4, *, node: str = "", on_processors: bool = True) -> list[WorkerSpec]:
    return [
        WorkerSpec(
            worker_id=f"expert-{number}",
            node=node,
            expert_bandwidth=10e9,
            on_processors=on_processors,
        )
        for number in range(count)
    ]


def layout(grid: str, specs: list[WorkerSpec]) -> Layout:
    made = lay_out(SHAPE, specs, parse_grid(grid, len(specs)))
    assert isinstance(made, dict)
    return made


def test_traffic_of_a_worker_that_holds_a_whole_layer() -> None:
    (count,) = traffic(SHAPE, 1, layout("layer-major", workers())[1], 5)
    assert (count.messages, count.sent, count.received) == (1.0, 5.0, 5.0)
    assert count.experts == pytest.approx(64 * (1 - (7 / 8) ** 5))


def test_traffic_of_four_workers_adds_up() -> None:
    counts = traffic(SHAPE, 1, layout("expert-major", workers())[1], 5)
    (whole,) = traffic(SHAPE, 1, layout("layer-major", workers())[1], 5)
    assert sum(count.experts for count in counts) == pytest.approx(whole.experts)
    assert 5 < sum(count.sent for count in counts) < 20
    assert 5 * 7 < sum(count.received for count in counts) <= 5 * 8
    assert sum(count.messages for count in counts) == pytest.approx(4.0, abs=0.01)


def test_a_load_of_equal_tokens_is_no_load() -> None:
    shares = layout("2x2", workers())[1]
    load = dict.fromkeys(SHAPE.layers, [3.0] * SHAPE.experts)
    for even, counted in zip(
        traffic(SHAPE, 1, shares, 4), traffic(SHAPE, 1, shares, 4, load), strict=True
    ):
        assert counted.sent == pytest.approx(even.sent)
        assert counted.experts == pytest.approx(even.experts)


@settings(deadline=None)
@given(
    demands=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    delay=st.floats(0, 1),
    customers=st.integers(1, 16),
)
def test_a_round_is_no_shorter_than_its_bounds_and_no_longer_than_one_after_another(
    demands: list[float], delay: float, customers: int
) -> None:
    found = round_seconds(demands, delay, customers)
    alone = delay + sum(demands)
    assert found >= max(alone, customers * max(demands)) - 1e-9
    assert found <= delay + customers * sum(demands) + 1e-9


def test_workers_of_one_node_share_its_processors() -> None:
    apart = predict(SHAPE, layout("expert-major", workers(node="other")), COSTS)
    two = replace(COSTS, cores={"": 2})
    together = predict(SHAPE, layout("expert-major", workers()), two)
    unbound = predict(SHAPE, layout("expert-major", workers()), COSTS)
    assert apart.step_seconds == unbound.step_seconds
    assert together.step_seconds > unbound.step_seconds
    assert together.node_seconds == pytest.approx(
        (together.router_seconds + 4 * together.worker_seconds) / 2
    )


def test_a_gpu_s_arithmetic_takes_no_processor() -> None:
    costs = replace(COSTS, cores={"": 2}, worker_message_seconds=0.0)
    on_gpu = predict(SHAPE, layout("expert-major", workers(on_processors=False)), costs)
    assert on_gpu.node_seconds == pytest.approx(on_gpu.router_seconds / 2)
    assert on_gpu.worker_seconds > 0


def test_few_rows_are_not_split() -> None:
    costs = replace(COSTS, micro_batches=8, least_rows=8)
    assert [replace(costs, rows=rows).batches for rows in (1, 8, 9, 32, 64)] == [1, 1, 2, 4, 8]


def test_micro_batches_are_chosen_where_workers_would_wait() -> None:
    def best(costs: CostModel, node: str) -> int:
        return choose_in_flight(
            lambda number: plan(SHAPE, workers(node=node), replace(costs, micro_batches=number))
        )[0]

    # One processor for everybody has nobody to wait for; router and workers apart have.
    full = replace(COSTS, cores={"": 1})
    apart = replace(COSTS, router_row_seconds=300e-6, worker_moved_seconds=300e-6)
    assert best(full, "") == 1
    assert best(apart, "elsewhere") > 1
