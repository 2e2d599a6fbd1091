"""Layers packed side by side come out as each one packed alone, copy by copy."""

from __future__ import annotations

import random

import numpy as np
import pytest

from cluster.planner import TWICE, WorkerSpec, WorkerState
from cluster.planner.crew import ANY_PRINT, Counts, Crew, Held, crew_of, hit, homes
from cluster.planner.drafts import Drafts
from cluster.planner.packing import Bench, pack
from cluster.planner.redundancy import copies_wanted
from tests.support.plain_packing import plain_pack


def some_crew(chance: random.Random) -> Crew:
    room = chance.choice([None, 30])
    return crew_of(
        [
            WorkerState(
                spec=WorkerSpec(
                    worker_id=f"w{number}",
                    node=f"n{number // 2}",
                    expert_bandwidth=chance.choice([1e9, 2e9]),
                    memory_bytes=room,
                    fingerprint=chance.choice(["a", "a", "b", ""]),
                ),
                live=chance.random() < 0.9,
                spare=chance.random() < 0.1,
            )
            for number in range(chance.randint(2, 8))
        ],
        expert_bytes=1,
    )


@pytest.mark.parametrize("seed", range(60))
def test_side_by_side_is_one_by_one(seed: int) -> None:
    chance, draw = random.Random(seed), np.random.default_rng(seed)
    crew = some_crew(chance)
    layers, experts, workers = chance.randint(1, 5), 12, len(crew.ids)
    now = draw.random((layers, experts, workers)) < 0.3
    now &= crew.taking
    load = draw.random((layers, experts)) ** 3 + 0.01
    copies = copies_wanted(load, chance.choice([0, 3, TWICE]), workers)
    slack = chance.choice([None, 0.0, 0.1])
    reach = draw.random((layers, workers)) < 0.8
    reach[:, 0] = True
    bench = Bench(
        room=now.sum(axis=1) + draw.integers(0, 12, (layers, workers)),
        slots=draw.integers(1, 6, (layers, workers)),
        reach=reach,
        first=np.broadcast_to(crew.spare if crew.spare.any() else True, reach.shape),
        slack=slack,
    )
    home = np.where(draw.random((layers, experts)) < 0.5, homes(now, crew), ANY_PRINT)
    packed = pack(now, copies, load / copies, home, crew, bench)
    for layer in range(layers):
        alone = Bench(
            room=bench.room[layer],
            slots=bench.slots[layer],
            reach=bench.reach[layer],
            first=bench.first[layer],
            slack=slack,
        )
        share = load[layer] / copies[layer]
        plain = plain_pack(now[layer], copies[layer], share, home[layer], crew, alone)
        assert (packed[layer] == plain).all()


def test_a_draft_for_which_the_room_is_gone_is_made_anew() -> None:
    crew = crew_of(
        [
            WorkerState(
                spec=WorkerSpec(worker_id=name, node="", expert_bandwidth=1e9, memory_bytes=room)
            )
            for name, room in (("small", 4), ("big", 8))
        ],
        expert_bytes=1,
    )
    held: Held = np.zeros((2, 4, 2), np.bool_)
    ones: Counts = np.ones((2, 4), np.int64)
    nobody: Counts = np.full((2, 4), ANY_PRINT)
    reach = np.ones((2, 2), np.bool_)
    used = np.zeros(2, np.int64)
    drafts = Drafts([0, 1], held, used, ones, ones, ones * 1.0, nobody, crew, reach)
    assert drafts.of(0, used).sum(axis=0).tolist() == [2, 2]
    fuller = used + np.array([3, 2])
    again = drafts.of(1, fuller)
    assert again.sum(axis=0).tolist() == [1, 3]
    assert hit(again, 1).all()
