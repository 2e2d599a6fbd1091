"""The gate: which experts a row goes to, and with what weights (`noaux_tc`, sigmoid scores)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.config import ModelConfig

_GROUP_SCORE_EXPERTS = 2


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The fields of the model's configuration that the gate needs."""

    n_group: int
    topk_group: int
    num_experts_per_tok: int
    norm_topk_prob: bool
    routed_scaling_factor: float

    @classmethod
    def of(cls, config: ModelConfig) -> GateConfig:
        return cls(
            n_group=config.n_group,
            topk_group=config.topk_group,
            num_experts_per_tok=config.num_experts_per_tok,
            norm_topk_prob=config.norm_topk_prob,
            routed_scaling_factor=config.routed_scaling_factor,
        )


@dataclass(frozen=True, kw_only=True)
class GateWeights:
    """weight: [experts, hidden] float32. e_score_correction_bias: [experts] float32, never
    rounded to anything narrower: it decides between experts that are nearly tied."""

    weight: Tensor
    e_score_correction_bias: Tensor


def gate(
    x: Tensor, weights: GateWeights, config: GateConfig, numerics: Numerics
) -> tuple[Tensor, Tensor]:
    """Chooses experts by biased scores and weighs them by unbiased ones, all in float32.

    Args:
        x: [T, hidden], activation dtype.

    Returns: `topk_idx` [T, k] int64, ascending in each row (ties went to the lowest id), and
        `topk_weights` [T, k] float32 in the same order, normalised and scaled.
    """
    scores = numerics.sigmoid(numerics.linear(x.float(), weights.weight))
    return select(scores, scores + weights.e_score_correction_bias, config)


def select(scores: Tensor, biased: Tensor, config: GateConfig) -> tuple[Tensor, Tensor]:
    """The choice and the weights, from scores alone; `scores`, `biased` are [T, experts] float32.

    The sum of the chosen scores is taken in ascending expert id, one addition after another.
    """
    if config.n_group > 1:
        biased = _only_best_groups(biased, config)
    topk_idx = _first_of_ties(biased, config.num_experts_per_tok).sort(-1).values
    chosen = scores.gather(1, topk_idx)
    if config.norm_topk_prob:
        total = chosen[:, 0].clone()
        for place in range(1, chosen.shape[1]):
            total += chosen[:, place]
        chosen = chosen / (total[:, None] + 1e-20)
    return topk_idx, chosen * config.routed_scaling_factor


def _only_best_groups(biased: Tensor, config: GateConfig) -> Tensor:
    """Scores outside the best `topk_group` groups become -inf; a group's score is the sum of
    its two best."""
    groups = biased.view(biased.shape[0], config.n_group, -1)
    best = groups.topk(_GROUP_SCORE_EXPERTS, dim=-1).values
    group_scores = best[..., 0] + best[..., 1]
    kept = torch.zeros_like(group_scores, dtype=torch.bool)
    kept.scatter_(1, _first_of_ties(group_scores, config.topk_group), True)
    return groups.masked_fill(~kept[..., None], float("-inf")).flatten(1)


def _first_of_ties(scores: Tensor, k: int) -> Tensor:
    """Indices of the k largest of each row of [T, n], the lowest index first among equals.

    `torch.topk` leaves the choice among equals open, so each score becomes an integer that
    holds its order and, below it, its index.
    """
    bits = (scores + 0.0).view(torch.int32).long()
    order = torch.where(bits >= 0, bits, ~bits | -(1 << 31))
    index = torch.arange(scores.shape[1], device=scores.device)
    unique = (order << 16) + (scores.shape[1] - 1 - index)
    return unique.topk(k, dim=-1, sorted=False).indices
