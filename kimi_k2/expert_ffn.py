"""The routed experts' feed-forward network on rows that were already routed, by torch.

What devices and bfloat16 run, and the oracle of the compiled network (`kimi_k2.routed_rows`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kimi_k2.arithmetic import Numerics
from kimi_k2.expert_weights import ExpertWeights

_MAX_BLOCK_ROWS = 64
_MAX_GATHERED_BYTES = 8 << 20
"""Copies of weights made for one product, about what a processor's cache holds; an expert larger
than this is never copied."""


def expert_ffn(x: Tensor, slots: Tensor, weights: ExpertWeights, numerics: Numerics) -> Tensor:
    """Sends each row through one expert.

    A row's result depends on that row and its expert alone.

    Args:
        x: [P, hidden], activation dtype.
        slots: [P] int64, the slot of each row's expert, in any order; on the device of `x`.

    Returns: [P, hidden] in the dtype of `x`.
    """
    if x.shape[0] == 0:
        return torch.empty_like(x)
    weights = weights.cast(x.dtype)
    order = torch.argsort(slots, stable=True)
    counts = torch.bincount(slots, minlength=weights.gate_up.shape[0])
    if x.is_cuda:
        grouped = _grouped(x[order], counts, weights, numerics)
        return torch.empty_like(x).index_copy_(0, order, grouped)
    return _blocked(x, order, counts, weights, numerics)


def expert_ffn_oracle(
    x: Tensor, slots: Tensor, weights: ExpertWeights, numerics: Numerics
) -> Tensor:
    """The same by a loop over experts; equal to `expert_ffn` bit for bit on CPU."""
    weights, out = weights.cast(x.dtype), torch.empty_like(x)
    for slot in torch.unique(slots).tolist():
        mine = slots == slot
        hidden = numerics.swiglu(numerics.linear(x[mine], weights.gate_up[slot]))
        out[mine] = numerics.linear(hidden, weights.down[slot])
    return out


def _grouped(x: Tensor, counts: Tensor, weights: ExpertWeights, numerics: Numerics) -> Tensor:
    """Rows sorted by slot, one grouped product for each projection."""
    ends = torch.cumsum(counts, 0, dtype=torch.int32)
    gate_up = F.grouped_mm(x, weights.gate_up.transpose(1, 2), offs=ends)
    return F.grouped_mm(numerics.swiglu(gate_up), weights.down.transpose(1, 2), offs=ends)


def _blocked(
    x: Tensor, order: Tensor, counts: Tensor, weights: ExpertWeights, numerics: Numerics
) -> Tensor:
    """Blocks of rows of one expert each; blocks of equal height make one batched product."""
    out = torch.empty_like(x)
    ends = torch.cumsum(counts, 0)
    at_once = max(1, _MAX_GATHERED_BYTES * weights.gate_up.shape[0] // weights.nbytes)
    lower, height = 0, numerics.row_quantum
    while lower < int(counts.max()):
        last = 2 * height > max(_MAX_BLOCK_ROWS, numerics.row_quantum)
        mine = (counts > lower) if last else (counts > lower) & (counts <= height)
        blocks = _blocks(mine.nonzero()[:, 0], counts, ends, height)
        for part in zip(*(torch.split(tensor, at_once) for tensor in blocks), strict=True):
            _run_blocks(x, out, order, part, height, weights, numerics)
        if last:
            break
        lower, height = height, 2 * height
    return out


def _blocks(
    slots: Tensor, counts: Tensor, ends: Tensor, height: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Slot, first and end place (in sorted order) of each block of up to `height` rows."""
    per_slot = (counts[slots] + height - 1) // height
    slot_of = torch.repeat_interleave(slots, per_slot)
    number = torch.arange(slot_of.shape[0]) - torch.repeat_interleave(
        torch.cumsum(per_slot, 0) - per_slot, per_slot
    )
    first = ends[slot_of] - counts[slot_of] + number * height
    return slot_of, first, torch.minimum(first + height, ends[slot_of])


def _run_blocks(
    x: Tensor,
    out: Tensor,
    order: Tensor,
    blocks: tuple[Tensor, ...],
    height: int,
    weights: ExpertWeights,
    numerics: Numerics,
) -> None:
    slot_of, first, end = blocks
    if slot_of.shape[0] == 0:
        return
    places = first[:, None] + torch.arange(height)
    real = (places < end[:, None]).view(-1).nonzero()[:, 0]
    rows = order.index_select(0, torch.minimum(places, end[:, None] - 1).view(-1))
    block_x = x.index_select(0, rows).view(-1, height, x.shape[1])
    gate_up = numerics.batched(block_x, _select(weights.gate_up, slot_of).transpose(1, 2))
    down = numerics.batched(
        numerics.swiglu(gate_up), _select(weights.down, slot_of).transpose(1, 2)
    )
    down = down.view(-1, x.shape[1]).index_select(0, real)
    out.index_copy_(0, rows.index_select(0, real), down)


def _select(weight: Tensor, slots: Tensor) -> Tensor:
    if slots.shape[0] == 1:
        slot = int(slots)
        return weight[slot : slot + 1]
    return weight.index_select(0, slots)
