from __future__ import annotations

import dataclasses
import doctest
import importlib
import pkgutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cluster.planner
from cluster.errors import PlanError
from cluster.planner import CostModel, Grid, ModelShape, WorkerSpec, plan
from cluster.planner.divide import divide
from cluster.planner.grid import grids, parse_grid
from cluster.planner.layout import lay_out
from cluster.planner.predict import predict

K2 = ModelShape(
    layers=tuple(range(1, 61)),
    experts=384,
    top_k=8,
    hidden=7168,
    activation_bytes=2,
    expert_bytes=24_800_000,
)
NANO = ModelShape(
    layers=(1, 2, 3, 4),
    experts=384,
    top_k=8,
    hidden=256,
    activation_bytes=4,
    expert_bytes=3 * 32 * 256 * 4,
)


def fleet(count: int, bandwidth: float = 3e12, memory_bytes: int | None = None) -> list[WorkerSpec]:
    return [
        WorkerSpec(
            worker_id=f"expert-{number}",
            node="node",
            expert_bandwidth=bandwidth,
            memory_bytes=memory_bytes,
        )
        for number in range(count)
    ]


def costs(**changes: float) -> CostModel:
    values = {
        "rows": 256,
        "micro_batches": 1,
        "message_seconds": 128e-6,
        "latency_seconds": 200e-6,
        "link_bandwidth": 12.5e9,
        "router_layer_seconds": 0.0,
    } | changes
    return CostModel(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(cluster.planner.__path__)])
def test_examples_in_the_docstrings(module: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(f"cluster.planner.{module}"))
    assert failed == 0


def test_the_design_s_figures_for_k2_at_256_rows() -> None:
    """190 ms on one 3 TB/s GPU at a time, 24 ms spread over 8, and 6.6 times the bytes."""
    free = costs(message_seconds=0.0, latency_seconds=0.0, link_bandwidth=1e30)
    workers = fleet(8)
    one = lay_out(K2, workers, parse_grid("layer-major", 8))
    all_ = lay_out(K2, workers, parse_grid("expert-major", 8))
    assert not hasattr(one, "reason")
    assert not hasattr(all_, "reason")
    layer_major = predict(K2, one, free)  # type: ignore[arg-type]
    expert_major = predict(K2, all_, free)  # type: ignore[arg-type]
    assert layer_major.latency_seconds == pytest.approx(0.190, rel=0.01)
    assert expert_major.latency_seconds == pytest.approx(0.0237, rel=0.01)
    assert expert_major.link_bytes / layer_major.link_bytes == pytest.approx(6.6, abs=0.05)
    assert layer_major.messages == pytest.approx(60)
    assert expert_major.messages == pytest.approx(480)


def test_a_slow_network_wants_layer_major_a_fast_one_expert_major() -> None:
    slow = costs(rows=8, micro_batches=8, link_bandwidth=0.125e9, message_seconds=450e-6)
    fast = costs(rows=256, link_bandwidth=50e9, message_seconds=1e-6, latency_seconds=5e-6)
    assert plan(K2, fleet(8), slow).grid.shards == (1,) * 8
    assert plan(K2, fleet(8), fast).grid.shards == (8,)


def test_micro_batches_pay_off_under_layer_major() -> None:
    """Eight small ones keep eight workers busy where one large one waits for each in turn."""
    layout = lay_out(K2, fleet(8), parse_grid("layer-major", 8))
    assert not hasattr(layout, "reason")
    one = predict(K2, layout, costs(rows=64, micro_batches=1))  # type: ignore[arg-type]
    eight = predict(K2, layout, costs(rows=64, micro_batches=8))  # type: ignore[arg-type]
    assert one.bound == "the way of one micro-batch through the layers"
    assert eight.step_seconds < 0.5 * one.step_seconds


def test_nano_on_one_machine_saves_messages() -> None:
    chosen = plan(
        NANO,
        fleet(4, bandwidth=3e9),
        costs(
            rows=16,
            micro_batches=2,
            message_seconds=200e-6,
            latency_seconds=450e-6,
            link_bandwidth=1.25e9,
        ),
    )
    assert str(chosen.grid) in {str(grid) for grid in grids(4, 4, 384)}
    assert chosen.alternatives[0].grid == chosen.grid
    assert len(chosen.alternatives) == 4
    assert chosen.reasons[0].startswith(f"{chosen.grid}: ")


def test_three_workers_in_a_mixed_grid() -> None:
    chosen = plan(NANO, fleet(3), costs(), placement="2+1")
    assert chosen.grid == Grid(shards=(2, 1))
    held = {worker: chosen.experts_of(worker) for worker in ("expert-0", "expert-1", "expert-2")}
    assert list(held["expert-0"]) == list(held["expert-1"]) == [1, 2, 3]
    assert list(held["expert-2"]) == [4]
    assert held["expert-0"][1] == list(range(192))
    assert held["expert-1"][1] == list(range(192, 384))
    assert held["expert-2"][4] == list(range(384))


def test_memory_sends_fewer_experts_to_the_small_worker() -> None:
    small = WorkerSpec(
        worker_id="small",
        node="n",
        expert_bandwidth=1e9,
        memory_bytes=4 * 50 * NANO.expert_bytes,
    )
    large = WorkerSpec(worker_id="large", node="n", expert_bandwidth=1e9)
    chosen = plan(NANO, [small, large], costs(), placement="expert-major")
    assert [len(chosen.experts_of("small")[layer]) for layer in NANO.layers] == [50] * 4


def test_no_room_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PlanError, match=r"no placement is possible.*0\.15 GB.*experts\.memory_gb"):
        plan(NANO, fleet(4, memory_bytes=30_000_000), costs())


@pytest.mark.parametrize(
    ("workers", "placement", "said"),
    [
        (4, "2x3", "placement 2x3 is impossible: needs 6 workers, there are 4"),
        (5, "layer-major", "5 groups, but only 4 layers"),
        (400, "expert-major", "400 workers share a layer of 384 experts"),
        (2000, "auto", "2000 expert workers cannot share 4 layers"),
    ],
)
def test_impossible_grids(workers: int, placement: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        plan(NANO, fleet(workers), costs(), placement=placement)


def test_experts_that_serve_do_not_move_to_other_bits() -> None:
    workers = [
        dataclasses.replace(worker, fingerprint="avx512" if number < 2 else "avx2")
        for number, worker in enumerate(fleet(4))
    ]
    now = plan(NANO, workers, costs(), placement="2x2")
    again = plan(NANO, workers, costs(rows=64), current=now.owners)
    refused = {str(a.grid): a.refused for a in again.alternatives if a.prediction is None}
    assert refused == {"1x4": "768 experts would move to machines with other numerics"}
    assert again.grid != Grid(shards=(4,))
    alike = [dataclasses.replace(worker, fingerprint="same") for worker in workers]
    free = plan(NANO, alike, costs(), current=now.owners)
    assert all(alternative.prediction for alternative in free.alternatives)


def test_known_load_is_dealt_evenly() -> None:
    load = {layer: [100.0 if expert < 4 else 1.0 for expert in range(384)] for layer in NANO.layers}
    chosen = plan(NANO, fleet(4), costs(), placement="expert-major", load=load)
    for worker in ("expert-0", "expert-1", "expert-2", "expert-3"):
        held = chosen.experts_of(worker)[1]
        assert len(held) == 96
        assert sum(expert < 4 for expert in held) == 1


shapes = st.builds(
    ModelShape,
    layers=st.integers(1, 7).map(lambda n: tuple(range(1, n + 1))),
    experts=st.integers(4, 24),
    top_k=st.integers(1, 4),
    hidden=st.just(16),
    activation_bytes=st.just(2),
    expert_bytes=st.just(1000),
)
fleets = st.lists(
    st.tuples(st.floats(1e6, 1e9), st.one_of(st.none(), st.integers(0, 100_000))),
    min_size=1,
    max_size=8,
).map(
    lambda specs: [
        WorkerSpec(
            worker_id=f"w{number}", node="n", expert_bandwidth=bandwidth, memory_bytes=memory
        )
        for number, (bandwidth, memory) in enumerate(specs)
    ]
)


@settings(max_examples=150, deadline=None)
@given(shape=shapes, workers=fleets, rows=st.integers(1, 64), batches=st.integers(1, 4))
def test_every_plan_is_whole_and_fits(
    shape: ModelShape, workers: list[WorkerSpec], rows: int, batches: int
) -> None:
    try:
        chosen = plan(shape, workers, costs(rows=rows, micro_batches=batches))
    except PlanError:
        return
    assert set(chosen.owners) == set(shape.layers)
    ids = {worker.worker_id for worker in workers}
    for experts in chosen.owners.values():
        assert len(experts) == shape.experts
        assert all(len(owners) == 1 and owners[0] in ids for owners in experts)
    for worker in workers:
        held = sum(map(len, chosen.experts_of(worker.worker_id).values()))
        assert held >= 1
        if worker.memory_bytes is not None:
            assert held * shape.expert_bytes <= worker.memory_bytes
    best = chosen.prediction.step_seconds
    for other in chosen.alternatives:
        if other.prediction is not None:
            assert other.prediction.step_seconds >= best - 1e-6


@given(
    total=st.integers(0, 60),
    parts=st.lists(
        st.tuples(st.floats(0.1, 10), st.one_of(st.none(), st.integers(0, 20))),
        min_size=1,
        max_size=6,
    ),
    least=st.integers(0, 2),
)
def test_divide_gives_out_all_within_bounds(
    total: int, parts: list[tuple[float, int | None]], least: int
) -> None:
    weights, caps = [weight for weight, _ in parts], [cap for _, cap in parts]
    counts = divide(total, weights, caps, least)
    room = sum(total if cap is None else cap for cap in caps)
    if counts is None:
        assert (
            total < least * len(parts)
            or room < total
            or any(cap is not None and cap < least for cap in caps)
        )
        return
    assert sum(counts) == total
    for count, cap in zip(counts, caps, strict=True):
        assert count >= least
        assert cap is None or count <= cap
