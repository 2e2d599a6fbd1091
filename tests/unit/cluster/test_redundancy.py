"""Copies and packing: DeepSeek's published example, and a slow and plain packing as oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from cluster.errors import PlanError
from cluster.planner import TWICE, CostModel, ModelShape, Redundancy, WorkerSpec, WorkerState, plan
from cluster.planner.balance import balancedness
from cluster.planner.crew import ANY_PRINT, Crew, Held, Loads, crew_of, held_of, owners_of
from cluster.planner.packing import Bench, pack
from cluster.planner.redundancy import copies_wanted

SHAPE = ModelShape(
    layers=(1, 2, 3, 4), experts=12, top_k=2, hidden=8, activation_bytes=4, expert_bytes=1000
)
COSTS = CostModel(
    rows=4, micro_batches=1, message_seconds=1e-6, latency_seconds=1e-6, link_bandwidth=1e9
)


def crew(count: int, nodes: int = 0) -> Crew:
    return crew_of(
        [WorkerState(spec=spec) for spec in specs(count, nodes)], expert_bytes=SHAPE.expert_bytes
    )


def specs(count: int, nodes: int = 0, memory_bytes: int | None = None) -> list[WorkerSpec]:
    return [
        WorkerSpec(
            worker_id=f"w{number}",
            node=f"n{number * nodes // count}" if nodes else "",
            expert_bandwidth=1e9,
            memory_bytes=memory_bytes,
        )
        for number in range(count)
    ]


def packed(load: Loads, redundant: int, workers: Crew) -> Held:
    """One layer, packed as EPLB does it: nothing stays, every worker gets as many."""
    copies = copies_wanted(load[None], redundant, len(workers.ids))
    everyone = np.ones((1, len(workers.ids)), np.bool_)
    slots = np.full((1, len(workers.ids)), copies.sum() // len(workers.ids))
    room = workers.capacity[None]
    bench = Bench(room=room, slots=slots, reach=everyone, first=everyone, slack=0.0)
    nothing = np.zeros((1, len(load), len(workers.ids)), np.bool_)
    home = np.full((1, len(load)), ANY_PRINT)
    return np.asarray(pack(nothing, copies, load / copies, home, workers, bench)[0])


@dataclass(frozen=True)
class Node:
    """A node of DeepSeek's example: its experts' loads, and what its GPUs get."""

    experts: tuple[int, ...]
    load: tuple[float, ...]
    gpus: tuple[set[int], ...]


EXAMPLE = [
    Node((3, 4, 5, 6, 7, 8), (61, 104, 165, 39, 4, 73), ({5, 6}, {5, 7}, {8, 4}, {3, 4})),
    Node((0, 1, 2, 9, 10, 11), (90, 132, 40, 56, 183, 86), ({10, 9}, {10, 2}, {0, 1}, {11, 1})),
    Node((6, 7, 8, 9, 10, 11), (187, 157, 172, 86, 16, 27), ({7, 10}, {6, 8}, {6, 11}, {8, 9})),
    Node((0, 1, 2, 3, 4, 5), (20, 107, 104, 64, 19, 197), ({2, 4}, {5, 1}, {5, 0}, {3, 1})),
]


@pytest.mark.parametrize("node", EXAMPLE)
def test_deepseek_s_example(node: Node) -> None:
    """Two layers of 12 experts, 4 redundant, on 2 nodes of 4 GPUs, once the nodes are chosen."""
    held = packed(np.array(node.load, np.float64), 2, crew(4))
    found = [{node.experts[place] for place in column.nonzero()[0]} for column in held.T]
    assert sorted(map(sorted, found)) == sorted(map(sorted, node.gpus))


def plain_packing(load: Loads, redundant: int, workers: int) -> Loads:
    """The oracle: work of each worker, least first, no attention to speed or nodes."""
    copies = [1] * len(load)
    for _ in range(redundant):
        copies[max(range(len(load)), key=lambda e: (load[e] / copies[e], -e))] += 1
    items = sorted(
        (-load[expert] / copies[expert], expert)
        for expert in range(len(load))
        for _ in range(copies[expert])
    )
    work, held = [0.0] * workers, [set[int]() for _ in range(workers)]
    for share, expert in items:
        places = [
            place
            for place in range(workers)
            if len(held[place]) < len(items) // workers and expert not in held[place]
        ]
        place = min(places, key=lambda place: work[place])
        work[place] -= share
        held[place].add(expert)
    return np.array(work)


@pytest.mark.parametrize("seed", range(5))
def test_packing_is_the_plain_one(seed: int) -> None:
    load = np.random.default_rng(seed).integers(1, 1000, 60).astype(np.float64)
    held = packed(load, 12, crew(8))
    copies = copies_wanted(load[None], 12, 8)[0]
    assert held.sum(axis=1).tolist() == copies.tolist()
    assert np.allclose((load / copies) @ held, plain_packing(load, 12, 8))


def test_the_hottest_get_the_copies() -> None:
    load = np.array([[8.0, 1.0, 4.0, 1.0]])
    assert copies_wanted(load, 0, 4).tolist() == [[1, 1, 1, 1]]
    assert copies_wanted(load, 3, 4).tolist() == [[3, 1, 2, 1]]
    assert copies_wanted(load, 3, 2).tolist() == [[2, 2, 2, 1]]
    assert copies_wanted(load, 99, 2).tolist() == [[2, 2, 2, 2]]
    assert copies_wanted(load, TWICE, 1).tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("redundant", [5, TWICE])
@pytest.mark.parametrize("placement", ["expert-major", "2x2", "2+1+1", "layer-major"])
@pytest.mark.parametrize("loaded", [False, True])
def test_first_placements(placement: str, redundant: Redundancy, loaded: bool) -> None:
    load = {layer: [float(100 // (e + 1)) for e in range(12)] for layer in SHAPE.layers}
    made = plan(
        SHAPE,
        specs(4),
        COSTS,
        placement=placement,
        redundant=redundant,
        load=load if loaded else None,
    )
    per_layer = [sum(map(len, experts)) for experts in made.owners.values()]
    wholes = 0 if placement in ("expert-major", "2x2") else 2 if placement == "2+1+1" else 4
    if redundant == TWICE:
        assert per_layer == [24] * 4
    else:
        # 5 of 12 in each whole layer: as many whole layers as that makes.
        assert sum(per_layer) == 48 + 5 * (4 - wholes) + 5 * wholes // 12 * 12
        assert bool(made.fewer) == (wholes > 0)
    assert all(len(set(ids)) == len(ids) for experts in made.owners.values() for ids in experts)


def test_layer_major_copies_whole_layers_to_other_nodes() -> None:
    made = plan(SHAPE, specs(4, nodes=2), COSTS, placement="layer-major", redundant=TWICE)
    assert made.owners == {
        1: (("w0", "w2"),) * 12,
        2: (("w1", "w3"),) * 12,
        3: (("w0", "w2"),) * 12,
        4: (("w1", "w3"),) * 12,
    }


def test_a_group_on_one_node_gets_its_copies_elsewhere() -> None:
    made = plan(SHAPE, specs(4, nodes=2), COSTS, placement="2x2", redundant=TWICE)
    for experts in made.owners.values():
        for one, other in experts:
            assert (one in ("w0", "w1")) != (other in ("w0", "w1"))


def test_without_redundancy_nothing_changes() -> None:
    plain = plan(SHAPE, specs(4), COSTS, placement="expert-major")
    assert plain == plan(SHAPE, specs(4), COSTS, placement="expert-major", redundant=0)
    assert plain.copies == 48
    assert plain.owners[1] == (("w0",),) * 3 + (("w1",),) * 3 + (("w2",),) * 3 + (("w3",),) * 3


def test_known_loads_are_balanced_from_the_start() -> None:
    load = {layer: [1000.0 / (e + 1) for e in range(12)] for layer in SHAPE.layers}
    alone = plan(SHAPE, specs(4), COSTS, placement="expert-major", load=load)
    copied = plan(SHAPE, specs(4), COSTS, placement="expert-major", load=load, redundant=4)
    assert max(alone.balancedness.values()) < 0.8
    assert min(copied.balancedness.values()) > 0.97


@pytest.mark.parametrize(
    ("count", "memory", "redundant", "said"),
    [
        (1, None, TWICE, "every expert twice needs at least 2 workers"),
        (4, 20_000, TWICE, "96 experts with their copies, and room for 80"),
        (4, 13_000, 5, "68 experts with their copies, and room for 52"),
    ],
)
def test_what_does_not_fit_is_refused(
    count: int, memory: int | None, redundant: Redundancy, said: str
) -> None:
    with pytest.raises(PlanError, match=said):
        plan(
            SHAPE,
            specs(count, memory_bytes=memory),
            COSTS,
            placement="expert-major",
            redundant=redundant,
        )


def test_faster_workers_get_more() -> None:
    fast = [
        WorkerSpec(worker_id=name, node="", expert_bandwidth=bandwidth)
        for name, bandwidth in (("slow", 1e9), ("fast", 3e9), ("slow-too", 1e9), ("fast-too", 3e9))
    ]
    shape = ModelShape(
        layers=(1,), experts=120, top_k=2, hidden=8, activation_bytes=4, expert_bytes=1000
    )
    load = {1: [float(e + 1) for e in range(120)]}
    made = plan(shape, fast, COSTS, placement="expert-major", redundant=8, load=load)
    held = {spec.worker_id: len(made.experts_of(spec.worker_id)[1]) for spec in fast}
    assert held == {"slow": 16, "fast": 48, "slow-too": 16, "fast-too": 48}
    assert made.balancedness[1] > 0.98


def test_owners_and_arrays_are_the_same_thing() -> None:
    owners = {3: (("w0",), ("w0", "w2"), ()), 7: ((), ("w1",), ("w1", "w2"))}
    workers = crew(3)
    assert owners_of(held_of(owners, workers), (3, 7), workers) == owners


def test_balancedness_is_mean_over_max() -> None:
    workers = crew(2)
    held = held_of({1: (("w0",), ("w1",), ("w0", "w1"))}, workers)
    # 3 + 2 and 1 + 2.
    assert balancedness(held, np.array([[3.0, 1.0, 4.0]]), workers).tolist() == [4 / 5]
    assert balancedness(held, np.zeros((1, 3)), workers).tolist() == [1.0]
