"""The forward pass: order of dispatch, parking, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kimi_k2.attention_plan import plan_attention
from kimi_k2.batch import ForwardResult, MicroBatch
from kimi_k2.experts import RoutedRows
from kimi_k2.load import load_local_experts, load_router_model
from kimi_k2.local_experts import LocalExperts
from kimi_k2.mla import LatentAttention
from kimi_k2.model import Model
from kimi_k2.naive_mla import naive_attention
from kimi_k2.torch_layers import TorchLayers
from tests.support.checkpoints import write_random_checkpoint
from tests.support.models import random_model
from tests.support.sequences import Runner, run_together


@dataclass
class Watched:
    """Wraps experts: notes calls, suspends once a dispatch, loses the experts it is told to."""

    inner: LocalExperts
    lost: set[tuple[int, int]] = field(default_factory=set)
    poison: float = 1e30
    active: list[Tensor | None] = field(default_factory=list)
    asked: list[tuple[int, int]] = field(default_factory=list)

    async def dispatch(
        self, layer: int, x: Tensor, topk_idx: Tensor, topk_weights: Tensor, active: Tensor | None
    ) -> Awaitable[RoutedRows]:
        self.active.append(active)
        pending = await self.inner.dispatch(layer, x, topk_idx, topk_weights, active)
        here = torch.ones(x.shape[0], dtype=torch.bool) if active is None else active
        self.asked += [(layer, row) for row in here.nonzero()[:, 0].tolist()]
        missing = {
            row: (layer, expert)
            for row in here.nonzero()[:, 0].tolist()
            for expert in reversed(topk_idx[row].tolist())
            if (layer, expert) in self.lost
        }
        return asyncio.ensure_future(self._later(pending, missing))

    async def _later(
        self, pending: Awaitable[RoutedRows], missing: dict[int, tuple[int, int]]
    ) -> RoutedRows:
        await asyncio.sleep(0)
        rows = (await pending).rows
        if not missing:
            return RoutedRows(rows=rows)
        parked = torch.zeros(rows.shape[0], dtype=torch.bool)
        parked[list(missing)] = True
        rows = torch.where(parked[:, None], self.poison, rows)
        return RoutedRows(rows=rows, parked=parked, missing=missing)

    def is_live(self, layer: int, expert: int) -> bool:
        return (layer, expert) not in self.lost


TOKENS = torch.randint(0, 128, (90,), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model_and_experts() -> tuple[Model, LocalExperts]:
    return random_model({"vocab_size": 128})


def run(
    model: Model, experts: LocalExperts | Watched, lengths: tuple[int, ...]
) -> tuple[ForwardResult, list[Runner]]:
    cache = model.new_cache(8)
    runners = [
        Runner(model, experts, cache=cache, blocks=(2 * i, 2 * i + 1)) for i in range(len(lengths))
    ]
    parts = [(r, TOKENS[:length]) for r, length in zip(runners, lengths, strict=True)]
    return asyncio.run(run_together(parts, all_logits=True)), runners


def test_suspending_experts_change_nothing(model_and_experts: tuple[Model, LocalExperts]) -> None:
    model, experts = model_and_experts
    plain, _ = run(model, experts, (5, 1, 70))
    watched, _ = run(model, Watched(experts), (5, 1, 70))
    assert torch.equal(plain.logits, watched.logits)
    assert plain.missing == {}


def test_padding_is_not_active() -> None:
    model, experts = random_model({"vocab_size": 128}, kernels=False)
    watched = Watched(experts)
    run(model, watched, (3, 2))
    quantum = model.numerics.row_quantum
    for active in watched.active:
        assert active is not None
        assert active.shape[0] % quantum == 0
        assert active.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]
    watched = Watched(experts)
    run(model, watched, (quantum,))
    assert watched.active == [None, None]


def test_parked_rows_harm_nobody(model_and_experts: tuple[Model, LocalExperts]) -> None:
    """Rows that need the lost expert are reported, all others keep their bits."""
    model, experts = model_and_experts
    lengths = (40, 1, 7, 30)
    wanted, _ = run(model, experts, lengths)
    parked_somewhere = False
    for expert in range(16):
        watched = Watched(experts, lost={(1, expert)}, poison=float("nan"))
        result, runners = run(model, watched, lengths)
        start = 0
        for length in lengths:
            missing = [row for row in result.missing if start <= row < start + length]
            good = min(missing, default=start + length)
            assert torch.equal(result.logits[start:good], wanted.logits[start:good])
            parked_somewhere |= bool(missing)
            start += length
        assert set(result.missing.values()) <= {(1, expert)}
        assert bool(runners[0].cache.pages.isfinite().all())
        in_layer_two = {row for layer, row in watched.asked if layer == 2}
        assert in_layer_two.isdisjoint(result.missing)
    assert parked_somewhere


def test_later_rows_of_a_parked_segment_are_not_asked_again(
    model_and_experts: tuple[Model, LocalExperts],
) -> None:
    model, experts = model_and_experts
    for expert in range(16):
        watched = Watched(experts, lost={(1, expert)})
        result, _ = run(model, watched, (40, 20))
        later = {row for layer, row in watched.asked if layer == 2}
        first = min((row for row in result.missing if row < 40), default=40)
        second = min((row for row in result.missing if row >= 40), default=60)
        assert later == {*range(first), *range(40, second)}


def test_the_first_missing_expert_is_reported(
    model_and_experts: tuple[Model, LocalExperts],
) -> None:
    model, experts = model_and_experts
    lost = {(layer, expert) for layer in (1, 2) for expert in range(16)}
    watched = Watched(experts, lost=lost)
    result, _ = run(model, watched, (4,))
    assert {layer for layer, _ in result.missing.values()} == {1}
    assert sorted(result.missing) == [0, 1, 2, 3]
    assert len(watched.active) == 1, "nobody is left to ask the second layer for"


def test_replay_after_parking_gives_the_same_bits(
    model_and_experts: tuple[Model, LocalExperts],
) -> None:
    model, experts = model_and_experts
    plain = Runner(model, experts, num_blocks=2)
    wanted = asyncio.run(plain.extend(TOKENS[:70], all_logits=True))
    watched = Watched(experts, lost={(1, 3)}, poison=float("nan"))
    runner = Runner(model, watched, num_blocks=2)

    async def interrupted() -> Tensor:
        result = await run_together([(runner, TOKENS[:70])], all_logits=True)
        first = min(result.missing)
        watched.lost.clear()
        runner.position = first
        rest = await runner.extend(TOKENS[first:70], all_logits=True)
        return torch.cat((result.logits[:first], rest))

    assert torch.equal(asyncio.run(interrupted()), wanted)
    assert torch.equal(runner.cache.pages, plain.cache.pages)


def test_no_logits_wanted(model_and_experts: tuple[Model, LocalExperts]) -> None:
    model, experts = model_and_experts
    cache = model.new_cache(1)
    runner = Runner(model, experts, cache=cache)
    batch = MicroBatch(token_ids=TOKENS[:5], segments=(runner.segment(0, 5),), logit_rows=())
    result = asyncio.run(model.forward(batch, cache, experts))
    assert result.logits.shape == (0, 128)


def test_absorbed_attention_equals_naive() -> None:
    model, experts = random_model({"vocab_size": 128}, kernels=False)
    assert isinstance(model.math, TorchLayers)
    attention = LatentAttention(model.config, model.numerics)
    x = torch.randn(88, 64, generator=torch.Generator().manual_seed(2))
    runner = Runner(model, experts, num_blocks=2)
    plan = plan_attention([runner.segment(0, 88)], 2, model.numerics)
    rotation = attention.rotation(plan.positions)
    weights = model.math.weights.layers[1].attention
    absorbed = attention.forward(x, weights, 1, runner.cache, plan, rotation)
    assert torch.allclose(absorbed, naive_attention(x, weights, attention), atol=2e-6)


def test_from_a_directory(tmp_path: Path) -> None:
    path = write_random_checkpoint(tmp_path, {"vocab_size": 128})
    model = load_router_model(path)
    experts = load_local_experts(path)
    again = load_local_experts(path, numerics=model.numerics)
    one = asyncio.run(Runner(model, experts, num_blocks=2).extend(TOKENS))
    two = asyncio.run(Runner(model, again, num_blocks=2).extend(TOKENS))
    assert torch.equal(one, two)
    assert bool(one.isfinite().all())
    assert experts.is_live(1, 0)
    assert not experts.is_live(0, 0)
