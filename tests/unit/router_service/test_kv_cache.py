"""Blocks: who holds them, what is found again, what is given away first."""

from __future__ import annotations

import random

import pytest

from router_service.kv_cache import KVCache, blocks_for
from router_service.outputs import RequestOutput
from router_service.prefix_cache import ROOT, block_hash
from router_service.sequence import Sequence
from router_service.stop_checker import StopChecker
from tests.unit.router_service.fake_model import FakeDetokenizer, request


class Nowhere:
    def deliver(self, outputs: list[RequestOutput]) -> None: ...


def sequence(tokens: list[int], number: int = 0) -> Sequence:
    made = request(tokens)
    stops = StopChecker(
        made.sampling, max_output=99, eos_token_ids=(), new_detokenizer=FakeDetokenizer
    )
    return Sequence(number=number, request=made, sink=Nowhere(), stops=stops, now=0.0)


def tokens(length: int, seed: int = 0) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(50) for _ in range(length)]


def computed(kv: KVCache, seq: Sequence, count: int) -> None:
    seq.computed = count
    kv.publish(seq)


@pytest.mark.parametrize(("count", "blocks"), [(0, 0), (1, 1), (64, 1), (65, 2), (640, 10)])
def test_blocks_for(count: int, blocks: int) -> None:
    assert blocks_for(count) == blocks


def test_full_blocks_are_shared_and_the_last_token_is_left_to_compute() -> None:
    kv = KVCache(20, prefix_cache=True)
    first = sequence(tokens(128))
    assert kv.admit(first)
    assert (first.computed, len(first.block_table)) == (0, 2)
    computed(kv, first, 128)
    same, longer = sequence(tokens(128)), sequence(tokens(200))
    assert kv.admit(same)
    assert kv.admit(longer)
    assert (same.computed, longer.computed) == (64, 128)
    assert same.block_table[0] == first.block_table[0]
    assert longer.block_table[:2] == first.block_table
    assert not kv.violations([first, same, longer])
    for seq in (first, same, longer):
        kv.release(seq)
    assert kv.pool.used == 0
    assert not kv.violations([])


def test_a_block_that_is_not_computed_to_its_end_is_never_found() -> None:
    kv = KVCache(20, prefix_cache=True)
    first = sequence(tokens(200))
    kv.admit(first)
    computed(kv, first, 127)
    kv.release(first)
    again = sequence(tokens(200))
    kv.admit(again)
    assert again.computed == 64


def test_a_block_is_found_only_behind_the_same_beginning() -> None:
    kv = KVCache(20, prefix_cache=True)
    first = sequence(tokens(129))
    kv.admit(first)
    computed(kv, first, 129)
    other = sequence([*tokens(64, seed=9), *tokens(129)[64:]])
    kv.admit(other)
    assert other.computed == 0
    assert block_hash(ROOT, [1, 2]) != block_hash(block_hash(ROOT, [1]), [2])


def test_the_least_recently_used_block_goes_first_and_the_end_of_a_chain_before_its_start() -> None:
    kv = KVCache(4, prefix_cache=True)
    old, new = sequence(tokens(129, 1)), sequence(tokens(65, 2))
    for seq, count in ((old, 128), (new, 64)):
        kv.admit(seq)
        computed(kv, seq, count)
        kv.release(seq)
    assert (kv.pool.cached, kv.pool.free) == (3, 1)
    big = sequence(tokens(128, 3))
    assert kv.admit(big)
    kv.release(big)
    again = sequence(tokens(129, 1))
    kv.admit(again)
    assert again.computed == 64
    kv.release(again)
    assert not kv.violations([])


def test_admission_and_growth_take_all_or_nothing() -> None:
    kv = KVCache(3, prefix_cache=True)
    seq = sequence(tokens(64))
    assert kv.admit(seq)
    computed(kv, seq, 64)
    big = sequence(tokens(300))
    assert not kv.admit(big)
    assert not big.block_table
    assert not kv.violations([seq])
    assert not kv.admit(sequence(tokens(128, 5)), reserve=1)
    assert kv.admit(sequence(tokens(128, 5)))
    seq.append(1)
    assert not kv.grow(seq)
    assert len(seq.block_table) == 1


def test_without_prefix_cache_nothing_is_kept() -> None:
    kv = KVCache(4, prefix_cache=False)
    seq = sequence(tokens(130))
    kv.admit(seq)
    computed(kv, seq, 130)
    kv.release(seq)
    assert (kv.pool.free, kv.pool.cached) == (4, 0)
    again = sequence(tokens(130))
    kv.admit(again)
    assert again.computed == 0


@pytest.mark.parametrize("seed", range(8))
def test_counts_stay_right_whatever_happens(seed: int) -> None:
    generator = random.Random(seed)
    kv = KVCache(24, prefix_cache=seed % 4 != 0)
    running: list[Sequence] = []
    for _ in range(400):
        action = generator.random()
        if action < 0.4:
            seq = sequence(tokens(generator.randrange(1, 400), generator.randrange(3)))
            if kv.admit(seq, reserve=generator.randrange(3)):
                running.append(seq)
        elif running and action < 0.8:
            seq = generator.choice(running)
            if seq.uncomputed:
                computed(kv, seq, seq.computed + generator.randint(1, seq.uncomputed))
            else:
                seq.append(generator.randrange(50))
                if not kv.grow(seq):
                    kv.release(seq)
                    running.remove(seq)
        elif running:
            kv.release(running.pop(generator.randrange(len(running))))
        assert not kv.violations(running)
    for seq in running:
        kv.release(seq)
    assert kv.pool.used == 0
    assert not kv.violations([])


def test_tainted_blocks_are_wiped_before_somebody_else_has_them() -> None:
    wiped: list[int] = []
    kv = KVCache(4, prefix_cache=True, wipe=wiped.append)
    seq = sequence(tokens(200))
    kv.admit(seq)
    computed(kv, seq, 128)
    spoilt = seq.block_table[2:]
    kv.taint(spoilt)
    assert not kv.violations([seq])
    kv.release(seq)
    assert not wiped
    again = sequence(tokens(200))
    kv.admit(again)
    assert (again.computed, sorted(wiped)) == (128, sorted(spoilt))
    kv.release(again)
    kv.admit(sequence(tokens(200, 5)))
    assert len(wiped) == 2


def test_a_prompt_is_named_once_however_often_it_is_tried() -> None:
    kv = KVCache(20, prefix_cache=True)
    first = sequence(tokens(640))
    kv.admit(first)
    computed(kv, first, 640)
    kv.release(first)
    waiting = sequence(tokens(1300))
    assert not kv.admit(waiting)
    assert (len(waiting.block_names), kv.pool.cached) == (11, 10)
    names = list(waiting.block_names)
    assert not kv.admit(waiting)
    assert all(a is b for a, b in zip(names, waiting.block_names, strict=True))
    assert (waiting.block_hashes, waiting.block_table) == ([], [])


def test_violations_are_seen() -> None:
    kv = KVCache(4, prefix_cache=True)
    seq = sequence(tokens(65))
    kv.admit(seq)
    assert kv.violations([]) == [
        f"block {block} has 1 references, block tables hold 0" for block in sorted(seq.block_table)
    ]


def test_what_is_not_trusted_is_never_found_again() -> None:
    kv = KVCache(20, prefix_cache=True)
    before, running, waiting = (
        sequence(tokens(200)),
        sequence(tokens(130, 1)),
        sequence(tokens(200)),
    )
    assert kv.admit(before)
    computed(kv, before, 200)
    kv.release(before)
    assert kv.admit(running)
    assert not kv.admit(waiting, reserve=20)
    assert kv.pool.cached == 3
    kv.distrust()
    # It goes on with keys of before, so what it computes later is not to be found either.
    computed(kv, running, 130)
    assert kv.admit(waiting)
    assert waiting.computed == 0
    same = sequence(tokens(130, 1))
    assert kv.admit(same)
    assert same.computed == 0
    computed(kv, waiting, 200)
    again = sequence(tokens(200))
    assert kv.admit(again)
    assert again.computed == 192
    assert not kv.violations([running, waiting, same, again])
    for seq in (running, waiting, same, again):
        kv.release(seq)
    assert kv.pool.used == 0
    assert not kv.violations([])
