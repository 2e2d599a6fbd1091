"""Whether the compiled network of routed experts gives torch's bits on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.combine import combine
from kimi_k2.config import ModelConfig
from kimi_k2.expert_ffn import expert_ffn
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.held_experts import HeldExperts
from kimi_k2.int4 import quantize
from kimi_k2.packed_experts import PackedExperts
from kimi_k2.routed_rows import compiled_rows

_MAX_WEIGHTS = 1 << 26
"""The network of larger experts is trusted from its products, to bound start-up time."""
_EXPERTS, _TOP_K = 5, 3
_CHOSEN = ((0, 1, 4), (1, 2, 4), (0, 1, 2), (1, 2, 3))
_ROWS = 21
_GROUP = 32


def experts_differ(candidate: Numerics, config: ModelConfig) -> bool:
    """Compares both, over rows that are combined and rows that are not, in each form of weights."""
    hidden, width = config.hidden_size, config.moe_intermediate_size
    if 2 * hidden * width * _EXPERTS > _MAX_WEIGHTS:
        return False
    generator = torch.Generator().manual_seed(candidate.row_quantum)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    weights = ExpertWeights(
        gate_up=random(_EXPERTS, 2 * width, hidden) / hidden**0.5,
        down=random(_EXPERTS, hidden, width) / width**0.5,
    )
    x, factors = random(_ROWS, hidden), random(_ROWS, _TOP_K)
    slots = torch.tensor(_CHOSEN).repeat(_ROWS, 1)[:_ROWS]
    marked = np.arange(_ROWS) % 3 > 0
    library = replace(candidate, segments={})
    for form in _forms(weights, candidate):
        found = compiled_rows(
            x,
            np.full(_ROWS, _TOP_K),
            slots.flatten().numpy(),
            marked,
            factors.flatten().numpy(),
            form,
            candidate,
        )
        if found is None:
            continue
        rows = expert_ffn(
            x.repeat_interleave(_TOP_K, 0), slots.flatten(), form.plain(), library
        ).view(_ROWS, _TOP_K, hidden)
        whole = combine(rows, factors)
        wanted = [whole[n : n + 1] if marked[n] else rows[n] for n in range(_ROWS)]
        if not torch.equal(found, torch.cat(wanted)):
            return True
    return False


def _forms(weights: ExpertWeights, numerics: Numerics) -> Iterator[HeldExperts]:
    yield weights.as_column_major()
    yield weights.cast(torch.bfloat16).as_column_major()
    hidden, width = weights.gate_up.shape[2], weights.width
    up = numerics.segments.get((hidden, 2 * width))
    down = numerics.segments.get((width, hidden))
    if up is None or down is None or not PackedExperts.fits(hidden, width, _GROUP, up, down):
        return
    packed = PackedExperts.empty(weights.slots, width, hidden, _GROUP)
    gate, up_proj = weights.gate_up.chunk(2, dim=1)
    stored = {"gate_proj": gate, "up_proj": up_proj, "down_proj": weights.down}
    for projection, weight in stored.items():
        packed.put(slice(None), projection, *quantize(weight, _GROUP))
    yield packed
