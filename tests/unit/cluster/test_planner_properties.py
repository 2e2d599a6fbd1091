"""What holds for every fleet, load and placement that hypothesis can think of."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import PlanError
from cluster.planner import (
    TWICE,
    Budget,
    Load,
    Redundancy,
    Transition,
    WorkerSpec,
    WorkerState,
    drain,
    rebalance,
    repair,
    scale,
)
from cluster.planner.crew import Loads, Owners
from tests.support.rehearsal import Rehearsal

BYTES = 1000


@dataclass(frozen=True, kw_only=True)
class Case:
    owners: Owners
    workers: tuple[WorkerState, ...]
    load: Loads
    redundant: Redundancy

    def spec(self, worker_id: str) -> WorkerSpec:
        return self.state(worker_id).spec

    def state(self, worker_id: str) -> WorkerState:
        return next(state for state in self.workers if state.spec.worker_id == worker_id)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(2, 8))
    prints = draw(st.sampled_from([("",), ("a",), ("a", "b")]))
    chance = random.Random(draw(st.integers(0, 1 << 32)))
    held: dict[str, int] = {}
    count = draw(st.integers(1, 6))
    names = [f"w{number}" for number in range(count)]
    kinds = [draw(st.sampled_from(prints)) for _ in names]
    owners: dict[int, tuple[tuple[str, ...], ...]] = {}
    for layer in range(1, layers + 1):
        rows = []
        for _ in range(experts):
            kind = chance.choice(sorted(set(kinds)))
            able = [name for name, other in zip(names, kinds, strict=True) if other == kind]
            chosen = chance.sample(able, min(len(able), chance.choice([1, 1, 2])))
            for name in chosen:
                held[name] = held.get(name, 0) + 1
            rows.append(tuple(sorted(chosen)))
        owners[layer] = tuple(rows)
    workers = []
    for name, kind in zip(names, kinds, strict=True):
        spare = name not in held and draw(st.booleans())
        room = draw(st.one_of(st.none(), st.integers(0, 6)))
        workers.append(
            WorkerState(
                spec=WorkerSpec(
                    worker_id=name,
                    node=draw(st.sampled_from(["", "n0", "n1", "n2"])),
                    expert_bandwidth=draw(st.sampled_from([1e9, 1e9, 2e9])),
                    memory_bytes=None if room is None else (held.get(name, 0) + room) * BYTES,
                    fingerprint=kind,
                ),
                live=draw(st.integers(0, 5)) > 0,
                leaving=draw(st.integers(0, 5)) == 0,
                spare=spare,
            )
        )
    load = [[chance.choice([0, 1, 5, 50]) for _ in range(experts)] for _ in range(layers)]
    return Case(
        owners=owners,
        workers=tuple(workers),
        load=np.array(load, np.float64),
        redundant=draw(st.one_of(st.integers(0, experts), st.just(TWICE))),
    )


def check(case: Case, transition: Transition) -> None:
    """Carried out, it harms nobody and ends in a sound placement."""
    rehearsal = Rehearsal(case.owners, case.workers, BYTES)
    before = {pair: set(ids) for pair, ids in rehearsal.published.items()}
    rehearsal.play(transition)
    early = {(layer, expert) for layer, expert, _ in transition.evict_first}
    for pair, ids in rehearsal.published.items():
        if before[pair]:
            assert rehearsal.fewest[pair] >= 1, "an expert without a live owner"
        if pair not in early:
            assert rehearsal.fewest[pair] >= min(len(before[pair]), len(ids))
        once = case.owners[pair[0]][pair[1]]
        kinds = {case.spec(name).fingerprint for name in (*ids, *once)} - {""}
        assert len(kinds) <= 1, "copies that differ in bits"
    for step in transition.steps:
        if isinstance(step, Load):
            state = case.state(step.worker_id)
            assert state.live
            assert not state.leaving


def apart(case: Case, owners: Owners, *, spares: bool) -> None:
    """No two copies of one expert on a node while another has room for one of them."""
    used = {state.spec.worker_id: 0 for state in case.workers}
    for experts in owners.values():
        for ids in experts:
            for name in ids:
                used[name] += 1
    for experts in owners.values():
        for ids in experts:
            assert len(set(ids)) == len(ids)
            nodes = [node_of(case.spec(name)) for name in ids]
            if len(set(nodes)) == len(nodes):
                continue
            kinds = {case.spec(name).fingerprint for name in ids} - {""}
            better = [
                state.spec.worker_id
                for state in case.workers
                if state.live and not state.leaving and (spares or not state.spare)
                if not kinds or state.spec.fingerprint in (kinds | {""})
                if node_of(state.spec) not in nodes
                if state.spec.memory_bytes is None
                or (used[state.spec.worker_id] + 1) * BYTES <= state.spec.memory_bytes
            ]
            assert not better, f"{ids} share a node, {better} have room"


def node_of(spec: WorkerSpec) -> str:
    return spec.node or spec.worker_id


@settings(max_examples=150, deadline=None)
@given(case=cases(), copies=st.one_of(st.none(), st.integers(0, 8)))
def test_every_rebalance_is_sound(case: Case, copies: int | None) -> None:
    arguments = (case.owners, case.load, case.workers)
    made = rebalance(
        *arguments, redundant=case.redundant, expert_bytes=BYTES, budget=Budget(copies=copies)
    )
    check(case, made.transition)
    if not made.transition.blocked:
        apart(case, made.transition.owners, spares=False)
    again = rebalance(
        *arguments, redundant=case.redundant, expert_bytes=BYTES, budget=Budget(copies=copies)
    )
    assert again == made, "not deterministic"


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_a_balanced_placement_is_left_alone(case: Case) -> None:
    made = rebalance(
        case.owners, case.load, case.workers, redundant=case.redundant, expert_bytes=BYTES
    )
    if made.transition.blocked:
        return
    again = rebalance(
        made.transition.owners,
        case.load,
        case.workers,
        redundant=case.redundant,
        expert_bytes=BYTES,
    )
    assert again.transition.steps == ()


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_every_repair_is_sound(case: Case) -> None:
    made = repair(case.owners, case.workers, redundant=case.redundant, expert_bytes=BYTES)
    check(case, made.transition)
    for layer, experts in made.nowhere.items():
        assert set(experts) <= set(made.lost[layer])
    if not made.transition.blocked:
        apart(case, made.transition.owners, spares=True)
        nowhere_is_true(case, made.transition.owners, made.nowhere)


def nowhere_is_true(case: Case, owners: Owners, nowhere: object) -> None:
    used = {state.spec.worker_id: 0 for state in case.workers}
    for experts in owners.values():
        for ids in experts:
            for name in ids:
                used[name] += 1
    for layer, experts in owners.items():
        for expert, ids in enumerate(experts):
            if ids:
                continue
            kinds = {case.spec(name).fingerprint for name in case.owners[layer][expert]} - {""}
            for state in case.workers:
                if not state.live or state.leaving:
                    continue
                if kinds and state.spec.fingerprint not in (kinds | {""}):
                    continue
                memory = state.spec.memory_bytes
                assert memory is not None
                assert (used[state.spec.worker_id] + 1) * BYTES > memory, "room was there"


@settings(max_examples=100, deadline=None)
@given(case=cases(), data=st.data())
def test_every_drain_is_sound(case: Case, data: st.DataObject) -> None:
    leaving = data.draw(st.sampled_from([state.spec.worker_id for state in case.workers]))
    made = drain(case.owners, case.workers, [leaving], redundant=case.redundant, expert_bytes=BYTES)
    check(case, made.transition)
    assert not [
        step
        for step in made.transition.steps
        if isinstance(step, Load) and step.worker_id == leaving
    ]
    # What stays there is alive nowhere else.
    for experts in made.transition.owners.values():
        for ids in experts:
            if leaving in ids and not made.transition.blocked:
                others = [case.state(name) for name in ids if name != leaving]
                assert all(state.leaving or not state.live for state in others)


@settings(max_examples=100, deadline=None)
@given(case=cases(), count=st.integers(1, 6))
def test_every_scale_is_sound(case: Case, count: int) -> None:
    try:
        made = scale(
            case.owners,
            case.load,
            case.workers,
            count,
            redundant=case.redundant,
            expert_bytes=BYTES,
        )
    except PlanError:
        # That many are not there, or too few to hold everything: nothing is done then.
        return
    check(case, made.rebalance.transition)
    owners = made.rebalance.transition.owners
    kept = {name for experts in owners.values() for ids in experts for name in ids}
    assert not kept & set(made.leaving), "who leaves still holds something"
    serving = [state for state in case.workers if state.live and not state.spare]
    assert len(serving) - len(made.leaving) == count
