"""Absorbed attention over the paged latent cache, the same for prefill and decode.

The context is walked in pages of fixed size and partial results are merged in page order, so
nothing depends on how long other contexts are or how a prompt was cut. A page that a row may not
see is an exact no-op: its weights are zero and the running maximum stays.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kimi_k2.arithmetic import Numerics
from kimi_k2.attention_plan import AttentionPlan, RowBlocks
from kimi_k2.page_walk import can_walk, walk_pages


def paged_attention(
    query: Tensor, pages: Tensor, value_dim: int, plan: AttentionPlan, numerics: Numerics
) -> Tensor:
    """Softmax attention to the base 2 of every row over its sequence's latents up to its position.

    Args:
        query: [rows, heads, latent_dim] float32, already scaled, log2(e) included; rows may end
            in padding.
        pages: [num_blocks, BLOCK_SIZE, latent_dim], one layer's cache.
        value_dim: the first `value_dim` numbers of a latent row are its value.

    Returns: [rows, heads, value_dim] float32; zeros for padding rows.
    """
    if can_walk(query.shape[2], value_dim, numerics):
        return walk_pages(query, pages, value_dim, plan.walk, numerics)
    out = query.new_zeros(*query.shape[:2], value_dim)
    for blocks in plan.blocks:
        result = _attend(query, pages, value_dim, blocks, numerics)
        out.index_copy_(0, blocks.targets, result.index_select(0, blocks.places))
    return out


def _attend(
    query: Tensor, pages: Tensor, value_dim: int, blocks: RowBlocks, numerics: Numerics
) -> Tensor:
    """[blocks * tokens, heads, value_dim]."""
    count, tokens = blocks.tokens.shape
    heads = query.shape[1]
    rows = query.index_select(0, blocks.tokens.view(-1)).view(count, tokens * heads, -1)
    rows = F.pad(rows, (0, 0, 0, blocks.rows - tokens * heads))
    total = query.new_zeros(count, blocks.rows, value_dim)
    weight = query.new_zeros(count, blocks.rows, 1)
    highest = query.new_full((count, blocks.rows, 1), float("-inf"))
    for step in blocks.steps:
        active = slice(step.active)
        filled = step.pages.shape[0]
        keys = pages.index_select(0, step.pages).float()
        scores = numerics.batched(_fill(rows[active], filled), keys.transpose(1, 2))[active]
        if step.masked is not None:
            scores.masked_fill_(step.masked, float("-inf"))
        new_highest = torch.maximum(highest[active], scores.amax(-1, keepdim=True))
        faded = numerics.exp2(highest[active] - new_highest)
        scores = numerics.exp2(scores - new_highest)
        weight[active] = weight[active] * faded + scores.sum(-1, keepdim=True)
        values = numerics.batched(_fill(scores, filled), keys[..., :value_dim])[active]
        total[active].mul_(faded).add_(values)
        highest[active] = new_highest
    return (total / weight)[:, : tokens * heads].reshape(count * tokens, heads, value_dim)


def _fill(blocks: Tensor, count: int) -> Tensor:
    """Appends blocks of zeros up to `count`."""
    missing = count - blocks.shape[0]
    return blocks if missing == 0 else F.pad(blocks, (0, 0, 0, 0, 0, missing))
