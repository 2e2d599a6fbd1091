from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kimi_k2 import expert_ffn as module
from kimi_k2.expert_ffn import expert_ffn, expert_ffn_oracle
from kimi_k2.expert_weights import ExpertWeights
from tests.support.models import unproven_numerics

NUMERICS = unproven_numerics()


def weights(experts: int, width: int = 32, hidden: int = 256) -> ExpertWeights:
    generator = torch.Generator().manual_seed(experts)
    return ExpertWeights(
        gate_up=torch.randn(experts, 2 * width, hidden, generator=generator) / hidden**0.5,
        down=torch.randn(experts, hidden, width, generator=generator) / width**0.5,
    )


def rows(count: int, hidden: int = 256) -> torch.Tensor:
    return torch.randn(count, hidden, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 33, 256, 1500])
@pytest.mark.parametrize("experts", [1, 5, 96])
def test_equals_the_loop_over_experts(count: int, experts: int) -> None:
    held = weights(experts)
    x = rows(count)
    slots = torch.randint(0, experts, (count,), generator=torch.Generator().manual_seed(1))
    out = expert_ffn(x, slots, held, NUMERICS)
    assert torch.equal(out, expert_ffn_oracle(x, slots, held, NUMERICS))


def test_equals_the_formula() -> None:
    held = weights(3)
    x = rows(20)
    slots = torch.arange(20) % 3
    out = expert_ffn(x, slots, held, NUMERICS)
    for row, slot in enumerate(slots.tolist()):
        gate, up = (held.gate_up[slot] @ x[row]).chunk(2)
        wanted = held.down[slot] @ (F.silu(gate) * up)
        assert torch.allclose(out[row], wanted, atol=1e-5)


@pytest.mark.parametrize("crowd", [1, 3, 4, 9, 63, 64, 65, 300])
def test_a_row_does_not_depend_on_who_else_came(crowd: int) -> None:
    """The first row's expert gets `crowd` rows, so that its block takes every height."""
    held = weights(7)
    x = rows(1 + crowd)
    alone = expert_ffn(x[:1], torch.tensor([2]), held, NUMERICS)
    slots = torch.full((1 + crowd,), 2)
    slots[1::3] = 5
    for order in (torch.arange(1 + crowd), torch.arange(crowd, -1, -1)):
        together = expert_ffn(x[order], slots[order], held, NUMERICS)
        assert torch.equal(together[order.argsort()][0], alone[0])


def test_the_slot_does_not_matter() -> None:
    held = weights(6)
    moved = ExpertWeights(gate_up=held.gate_up[[4, 1]].clone(), down=held.down[[4, 1]].clone())
    x = rows(9)
    slots = torch.tensor([4, 1, 1, 4, 4, 1, 1, 1, 4])
    new_slots = torch.where(slots == 4, 0, 1)
    assert torch.equal(
        expert_ffn(x, slots, held, NUMERICS), expert_ffn(x, new_slots, moved, NUMERICS)
    )


def test_large_experts_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights above the bound run one block at a time, with the same bits."""
    held = weights(5)
    x = rows(200)
    slots = torch.arange(200) % 5
    wanted = expert_ffn(x, slots, held, NUMERICS)
    monkeypatch.setattr(module, "_MAX_GATHERED_BYTES", 1)
    assert torch.equal(expert_ffn(x, slots, held, NUMERICS), wanted)


def test_no_rows() -> None:
    empty = torch.empty(0, dtype=torch.int64)
    assert expert_ffn(rows(0), empty, weights(2), NUMERICS).shape == (0, 256)
