"""Fixed rows and what one expert makes of them, to tell wrong answers from right ones."""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.checkpoint import Checkpoint
from kimi_k2.expert_ffn import expert_ffn
from kimi_k2.held_experts import held_experts

_ROWS = 2


def canary_rows(hidden_size: int, numerics: Numerics) -> Tensor:
    """[2, hidden] on CPU, in the activation dtype; made of integers, so the same everywhere."""
    generator = torch.Generator().manual_seed(20253)
    values = torch.randint(-64, 65, (_ROWS, hidden_size), generator=generator)
    return (values.float() / 64).to(numerics.dtype)


def canary_answer(
    checkpoint: Checkpoint, x: Tensor, numerics: Numerics, layer: int, expert: int
) -> Tensor:
    """[rows, hidden] on CPU: what every process of this fingerprint computes for `x`.

    Reads the one expert from the checkpoint and keeps nothing of it. Computed by torch, which is
    the oracle of the compiled kernels.

    Raises:
        CheckpointError: see `Checkpoint.expert_weights`.
    """
    with torch.inference_mode():
        weights = held_experts(checkpoint, layer, (expert,), numerics).plain()
        slots = torch.zeros(len(x), dtype=torch.int64, device=numerics.device)
        return expert_ffn(x.to(numerics.device), slots, weights, numerics).cpu()
