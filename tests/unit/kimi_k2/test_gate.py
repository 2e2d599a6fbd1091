from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kimi_k2.gate import GateConfig, GateWeights, gate, select
from tests.support.models import unproven_numerics


def gate_config(k: int = 4, n_group: int = 1, topk_group: int = 1, norm: bool = True) -> GateConfig:
    return GateConfig(
        n_group=n_group,
        topk_group=topk_group,
        num_experts_per_tok=k,
        norm_topk_prob=norm,
        routed_scaling_factor=2.827,
    )


def by_sorting(biased: list[float], config: GateConfig) -> list[int]:
    """The choice with plain Python: best groups first, the lowest id among equals."""
    size = len(biased) // config.n_group
    groups = [list(range(g * size, (g + 1) * size)) for g in range(config.n_group)]

    def group_score(group: list[int]) -> float:
        best, second = sorted((biased[e] for e in group), reverse=True)[:2]
        return float(torch.tensor(best) + torch.tensor(second))

    kept = sorted(range(config.n_group), key=lambda g: (-group_score(groups[g]), g))
    eligible = [e for g in kept[: config.topk_group] for e in groups[g]]
    return sorted(sorted(eligible, key=lambda e: (-biased[e], e))[: config.num_experts_per_tok])


@pytest.mark.parametrize("config", [gate_config(), gate_config(k=6, n_group=8, topk_group=4)])
@pytest.mark.parametrize("levels", [3, 50, 1_000_000])
def test_choice_equals_sorting(config: GateConfig, levels: int) -> None:
    """Few levels make many ties; the offset makes scores negative too."""
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(0, levels, (40, 64), generator=generator).float() / levels
    biased = scores - 0.5
    topk_idx, _ = select(scores, biased, config)
    for row in range(40):
        assert topk_idx[row].tolist() == by_sorting(biased[row].tolist(), config)


def test_ties_go_to_the_lowest_id_even_around_zero() -> None:
    biased = torch.tensor([[0.0, -0.0, 0.0, -0.0, -1.0]])
    topk_idx, _ = select(torch.ones(1, 5), biased, gate_config(k=3))
    assert topk_idx.tolist() == [[0, 1, 2]]


def test_bias_chooses_but_does_not_weigh() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.4, 0.1]])
    biased = scores + torch.tensor([-1.0, 0.0, 0.0, 1.0])
    topk_idx, topk_weights = select(scores, biased, gate_config(k=2))
    assert topk_idx.tolist() == [[1, 3]]
    assert topk_weights[0].tolist() == pytest.approx([2.827 * 0.5 / 0.6, 2.827 * 0.1 / 0.6])


def test_unnormalised_weights_are_only_scaled() -> None:
    scores = torch.tensor([[0.9, 0.5]])
    _, topk_weights = select(scores, scores, gate_config(k=2, norm=False))
    assert torch.equal(topk_weights, scores * 2.827)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gate_works_in_float32(dtype: torch.dtype) -> None:
    """Weights and biases that bfloat16 could not tell from their neighbours decide."""
    x = torch.tensor([[1.0, -0.5, 0.25, 2.0, 0.0, 1.5, -1.0, 0.75]], dtype=dtype)
    weight = torch.full((16, 8), 0.0625)
    weight[[3, 7], 0] += 2**-16
    bias = torch.full((16,), 0.5)
    bias[[11, 15]] += 2**-20
    weights = GateWeights(weight=weight, e_score_correction_bias=bias)
    assert len(weight.bfloat16().unique()) == len(bias.bfloat16().unique()) == 1
    topk_idx, topk_weights = gate(x, weights, gate_config(), unproven_numerics())
    assert topk_idx.tolist() == [[3, 7, 11, 15]]
    scores = torch.sigmoid(x.double() @ weight.double().T)[0, topk_idx[0]]
    want = 2.827 * scores / scores.sum()
    assert topk_weights[0].tolist() == pytest.approx(want.tolist(), rel=1e-6)
    assert topk_idx.dtype is torch.int64
    assert topk_weights.dtype is torch.float32


def test_row_of_a_batch_equals_row_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(37, 64, generator=generator)
    weights = GateWeights(
        weight=torch.randn(384, 64, generator=generator) / 8,
        e_score_correction_bias=torch.randn(384, generator=generator) / 50,
    )

    def run(rows: Tensor) -> tuple[Tensor, Tensor]:
        return gate(rows, weights, gate_config(k=8), unproven_numerics())

    together = run(x)
    for row in range(37):
        alone = run(x[row : row + 1])
        assert torch.equal(alone[0][0], together[0][row])
        assert torch.equal(alone[1][0], together[1][row])
