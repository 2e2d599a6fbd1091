"""The scheduler's decisions, without a model."""

from __future__ import annotations

import pytest
import torch

from router_service.config import EngineConfig
from router_service.kv_cache import KVCache
from router_service.scheduler import Scheduler
from router_service.sequence import Sequence
from router_service.step_plan import StepPlan
from tests.unit.router_service.test_kv_cache import sequence, tokens
from wire.errors import OverloadedError


class Desk:
    """A scheduler whose micro-batches land when the test says so."""

    def __init__(self, **config: object) -> None:
        self.config = EngineConfig(**config)  # type: ignore[arg-type]
        self.kv = KVCache(self.config.kv_blocks, prefix_cache=self.config.prefix_cache)
        self.scheduler = Scheduler(self.config, self.kv)
        self._number = 0

    def add(self, length: int, seed: int | None = None) -> Sequence:
        seq = sequence(tokens(length, self._number if seed is None else seed), self._number)
        self._number += 1
        self.scheduler.add(seq)
        return seq

    def plan(self) -> StepPlan:
        plan = self.scheduler.schedule()
        assert plan is not None
        return plan

    def land(self, plan: StepPlan, missing: dict[int, tuple[int, int]] | None = None) -> None:
        """Every segment that may samples token 7."""
        for planned in self.scheduler.settle(plan, missing or {}, now=1.0):
            planned.sequence.append(7)

    def step(self) -> StepPlan:
        plan = self.plan()
        self.land(plan)
        return plan


def shape(plan: StepPlan) -> list[tuple[int, int, int, bool]]:
    return [(p.sequence.number, p.position, p.length, p.samples) for p in plan.segments]


def test_prompts_are_cut_to_the_budget_and_decoding_goes_on_beside_them() -> None:
    desk = Desk(prefill_chunk=100)
    desk.add(30)
    assert shape(desk.step()) == [(0, 0, 30, True)]
    desk.add(150)
    desk.add(90)
    assert shape(desk.step()) == [(0, 30, 1, True), (1, 0, 100, False)]
    assert shape(desk.step()) == [(0, 31, 1, True), (1, 100, 50, True), (2, 0, 50, False)]
    assert shape(desk.step()) == [(0, 32, 1, True), (1, 150, 1, True), (2, 50, 40, True)]


def test_chunks_shrink_with_the_context_before_them() -> None:
    """256 rows up to 4,096 tokens of context; the work of a chunk is bounded from there on."""
    desk = Desk(kv_blocks=2000)
    seq = desk.add(40_000)
    lengths = {}
    while seq.computed < 39_000:
        (_, position, length, _) = shape(desk.step())[0]
        lengths[position] = length
    assert {length for position, length in lengths.items() if position <= 4096} == {256}
    assert max(position * length for position, length in lengths.items()) <= 1 << 20
    assert lengths[4352] == (1 << 20) // 4352 == 240
    assert min(lengths.values()) == (1 << 20) // max(lengths) == 26


def test_the_work_of_a_micro_batch_is_shared_by_its_chunks() -> None:
    """A short prompt does not wait for the end of a long one."""
    desk = Desk(kv_blocks=500, prefill_chunk=1000, attention_budget=64_000)
    desk.add(3000)
    desk.add(3000)
    desk.add(500)
    assert shape(desk.step()) == [(0, 0, 1000, False)]
    # Half of the pairs for each but the last, which would get what is left.
    assert shape(desk.step()) == [(0, 1000, 32, False), (1, 0, 968, False)]
    assert shape(desk.step()) == [(0, 1032, 31, False), (1, 968, 16, False), (2, 0, 500, True)]
    desk.scheduler.finish(desk.scheduler.sequences[2])
    assert shape(desk.step()) == [(0, 1063, 30, False), (1, 984, 32, False)]


def test_a_chunk_has_8_rows_however_long_its_context() -> None:
    desk = Desk(kv_blocks=500, prefill_chunk=100, attention_budget=100)
    desk.add(120)
    desk.add(20)
    assert shape(desk.step()) == [(0, 0, 50, False), (1, 0, 20, True)]
    assert shape(desk.step()) == [(1, 20, 1, True), (0, 50, 8, False)]
    assert shape(desk.step()) == [(1, 21, 1, True), (0, 58, 8, False)]


def test_rows_are_laid_out_one_segment_after_another() -> None:
    desk = Desk(prefill_chunk=64)
    desk.add(40)
    desk.add(100)
    plan = desk.plan()
    assert [(p.start, p.last_row) for p in plan.segments] == [(0, 39), (40, 63)]
    assert plan.rows == 64
    batch = plan.micro_batch(torch.device("cpu"))
    assert batch.logit_rows == (39,)
    assert batch.token_ids.tolist() == tokens(40, 0) + tokens(100, 1)[:24]
    assert [len(segment.block_table) for segment in batch.segments] == [1, 1]


def test_micro_batches_share_the_decoding_sequences() -> None:
    desk = Desk(micro_batches=3, min_micro_rows=1)
    for _ in range(9):
        desk.add(5)
    desk.step()
    plans = [desk.plan() for _ in range(3)]
    assert [len(plan.segments) for plan in plans] == [3, 3, 3]
    flying = [p.sequence.number for plan in plans for p in plan.segments]
    assert sorted(flying) == list(range(9))
    assert desk.scheduler.schedule() is None
    desk.land(plans[1])
    again = desk.plan()
    assert {p.sequence.number for p in again.segments} == {
        p.sequence.number for p in plans[1].segments
    }


def test_few_sequences_are_not_split() -> None:
    desk = Desk(micro_batches=4, min_micro_rows=4)
    for _ in range(4):
        desk.add(5)
    desk.step()
    assert len(desk.plan().segments) == 4


def test_nobody_starves_when_shares_are_small() -> None:
    desk = Desk(micro_batches=4, min_micro_rows=1)
    for _ in range(8):
        desk.add(5)
    desk.step()
    seen = [p.sequence.number for _ in range(4) for p in desk.step().segments]
    assert sorted(seen) == list(range(8))


def test_admission_is_in_order_and_limited() -> None:
    desk = Desk(max_running=2, max_waiting=1)
    for _ in range(3):
        desk.add(5)
    with pytest.raises(OverloadedError):
        desk.add(5)
    first = desk.step()
    assert [p.sequence.number for p in first.segments] == [0, 1]
    assert (desk.scheduler.running, desk.scheduler.waiting) == (2, 1)
    desk.scheduler.finish(first.segments[0].sequence)
    assert [p.sequence.number for p in desk.step().segments] == [1, 2]


def test_the_youngest_gives_its_blocks_up_and_comes_back_first() -> None:
    desk = Desk(kv_blocks=4, prefix_cache=False, min_micro_rows=4)
    old, young = desk.add(64), desk.add(63)
    desk.step()
    later = desk.add(100)
    while old.block_table and young.block_table and len(old.block_table) < 3:
        desk.step()
    assert desk.scheduler.preemptions == 1
    assert not young.block_table
    assert young.computed == 0
    assert len(young.tokens) > 63
    assert not desk.scheduler.violations()
    desk.scheduler.finish(old)
    assert [p.sequence.number for p in desk.step().segments] == [young.number]
    assert not later.block_table


def test_blocks_of_a_sequence_in_flight_are_never_taken() -> None:
    desk = Desk(kv_blocks=3, prefix_cache=False, micro_batches=2, min_micro_rows=1)
    old, young = desk.add(63), desk.add(10)
    desk.step()
    spare, _ = desk.kv.pool.take()
    assert [p.sequence.number for p in desk.step().segments] == [old.number]
    flying = desk.plan()
    assert [p.sequence.number for p in flying.segments] == [young.number]
    # The old one needs a second block: it waits, though its own could be had.
    assert desk.scheduler.schedule() is None
    assert (len(old.block_table), len(young.block_table)) == (1, 1)
    desk.land(flying)
    assert [p.sequence.number for p in desk.plan().segments] == [old.number]
    assert (len(old.block_table), len(young.block_table)) == (2, 0)
    desk.kv.pool.release(spare, keep=False)
    assert not desk.scheduler.violations()


def test_the_blocks_of_an_ended_sequence_stay_until_it_lands() -> None:
    desk = Desk()
    seq = desk.add(70)
    plan = desk.plan()
    desk.scheduler.finish(seq)
    assert desk.kv.pool.used == 2
    desk.land(plan)
    assert desk.kv.pool.used == 0
    assert not desk.scheduler.sequences


def test_a_failed_micro_batch_leaves_nothing_computed() -> None:
    desk = Desk()
    seq = desk.add(70)
    plan = desk.plan()
    desk.scheduler.abandon(plan)
    assert (seq.computed, seq.in_flight) == (0, False)
    desk.scheduler.finish(seq)
    assert desk.kv.pool.used == 0


def test_a_parked_sequence_starts_again_at_its_first_missing_row() -> None:
    desk = Desk()
    whole, stuck = desk.add(10), desk.add(200)
    plan = desk.plan()
    desk.land(plan, missing={10 + 130: (3, 40), 10 + 131: (3, 41)})
    assert (whole.uncomputed, stuck.computed, stuck.missing) == (1, 130, (3, 40))
    assert len(stuck.block_hashes) == 2
    assert [p.sequence.number for p in desk.step().segments] == [whole.number]
    assert desk.scheduler.resume(lambda layer, expert: (layer, expert) != (3, 40)) == 0
    assert desk.scheduler.resume(lambda layer, expert: True) == 1
    assert shape(desk.step())[1] == (stuck.number, 130, 70, True)


def test_parked_sequences_make_way_and_come_back() -> None:
    desk = Desk(kv_blocks=4, max_running=1)
    stuck = desk.add(200)
    desk.land(desk.plan(), missing={199: (1, 2)})
    other = desk.add(190)
    assert [p.sequence.number for p in desk.step().segments] == [other.number]
    assert not stuck.block_table
    assert desk.scheduler.parked == (stuck,)
    desk.scheduler.finish(other)
    desk.scheduler.resume(lambda layer, expert: True)
    assert [p.sequence.number for p in desk.step().segments] == [stuck.number]
    assert not desk.scheduler.violations()


def test_time_parked_counts_from_the_last_progress() -> None:
    desk = Desk()
    seq = desk.add(10)
    desk.scheduler.settle(desk.plan(), {4: (1, 2)}, now=5.0)
    desk.scheduler.resume(lambda layer, expert: True)
    desk.scheduler.settle(desk.plan(), {0: (1, 3)}, now=9.0)
    assert (seq.computed, seq.parked_at, seq.missing) == (4, 5.0, (1, 3))
    desk.scheduler.resume(lambda layer, expert: True)
    desk.scheduler.settle(desk.plan(), {1: (1, 3)}, now=11.0)
    assert seq.parked_at == 11.0
