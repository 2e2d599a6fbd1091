"""Compiled halves of a layer: attention and gate, and the feed-forward network.

What a kernel is given of the model lies in records: `FACTS`, the model's sizes and segments, and
`LAYER`, the addresses of one layer's weights (`kimi_k2.panels` where rows are multiplied by them).
One call does a half, since at one row calls cost more than arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kimi_k2.attention_kernels import attend
from kimi_k2.exponential import sigmoid, silu
from kimi_k2.fma_tiles import Floats, Indices
from kimi_k2.jit import compiled
from kimi_k2.panel_kernels import multiply
from kimi_k2.row_kernels import choose, floats_at, rms_norm, rotate

CHUNK = 128
"""Rows that go through a half together: intermediate results should stay in a processor's cache."""

FACTS = np.dtype(
    [(name, np.int64) for name in ("hidden", "heads", "rank", "rope", "nope", "value_dim")]
    + [(name, np.int64) for name in ("q_rank", "experts", "normalised", "narrow")]
    + [(f"{name}_segment", np.int64) for name in ("q_a", "q_b", "kv_a", "absorb_k", "keys")]
    + [(f"{name}_segment", np.int64) for name in ("values", "absorb_v", "o", "gate", "head")]
    + [(name, np.float32) for name in ("eps", "latent_eps", "softmax_scale", "routed_scale")]
)
"""q_rank: 0 where queries have no low rank; `q_b_segment` then is of the whole projection.
narrow: whether all panels are bfloat16, else float32. head: the product that gives logits."""

LAYER = np.dtype(
    [(name, np.int64) for name in ("input_norm", "q_a", "q_a_norm", "q_b", "kv_a", "kv_a_norm")]
    + [(name, np.int64) for name in ("absorb_k", "absorb_v", "o", "post_norm", "gate", "bias")]
    + [(name, np.int64) for name in ("gate_up", "down", "width")]
    + [(f"{name}_segment", np.int64) for name in ("gate_up", "down")]
)
"""gate: 0 in a dense layer. width: of the dense network or the shared expert."""


@compiled
def attention_half(
    facts: Any,
    layer: Any,
    pages: Floats,
    blocks: Indices,
    table: Indices,
    rotations: Floats,
    x: Floats,
    normed: Floats,
    topk_idx: Indices,
    topk_weights: Floats,
) -> None:
    """From the residual stream to what the feed-forward network gets, and where its gate sends it.

    Args:
        facts, layer: one record each.
        pages: [num_blocks, page, latent], the layer's cache; the rows' latents are written.
        blocks, table: see `kimi_k2.page_walk.PageWalk`.
        rotations: [positions, 2, rope // 2], cos and sin.
        x: [rows, hidden], changed in place: attention is added.
        normed: [rows, hidden], out. topk_idx, topk_weights: [rows, k], out; of no meaning in
            a dense layer.
    """
    heads = facts[0].heads
    first = 0
    while first < blocks.shape[0]:
        start = blocks[first, 0] // heads
        last = first
        end = start
        while last < blocks.shape[0] and (last == first or end - start < CHUNK):
            end += blocks[last, 1] // heads
            last += 1
        chunk = blocks[first:last]
        _add_attention(facts[0], layer[0], pages, chunk, table, rotations, x[start:end])
        _route(
            facts[0],
            layer[0],
            x[start:end],
            normed[start:end],
            topk_idx[start:end],
            topk_weights[start:end],
        )
        first = last


@compiled
def _add_attention(
    facts: Any,
    layer: Any,
    pages: Floats,
    blocks: Indices,
    table: Indices,
    rotations: Floats,
    x: Floats,
) -> None:
    rows, hidden, heads, rank = x.shape[0], facts.hidden, facts.heads, facts.rank
    nope, rope, value_dim = facts.nope, facts.rope, facts.value_dim
    latent, page_size, narrow = rank + rope, pages.shape[1], facts.narrow
    normed = np.empty((rows, hidden), np.float32)
    _norm_rows(x, layer.input_norm, facts.eps, normed)

    kv = np.empty((rows, latent), np.float32)
    multiply(normed, layer.kv_a, narrow, facts.kv_a_segment, kv)
    q = np.empty((rows, heads, nope + rope), np.float32)
    flat = q.reshape(rows, heads * (nope + rope))
    if facts.q_rank == 0:
        multiply(normed, layer.q_b, narrow, facts.q_b_segment, flat)
    else:
        low = np.empty((rows, facts.q_rank), np.float32)
        multiply(normed, layer.q_a, narrow, facts.q_a_segment, low)
        _norm_rows(low, layer.q_a_norm, facts.latent_eps, low)
        multiply(low, layer.q_b, narrow, facts.q_b_segment, flat)

    query = np.empty((rows, heads, latent), np.float32)
    size = 2 if narrow != 0 else 4
    for head in range(heads):
        weight = layer.absorb_k + size * head * nope * rank
        absorbed = query[:, head, :rank]
        multiply(q[:, head, :nope], weight, narrow, facts.absorb_k_segment, absorbed)

    kv_a_norm = floats_at(layer.kv_a_norm, rank)
    squares, sums = np.empty(rank, np.float32), np.empty((4, 32), np.float32)
    origin = blocks[0, 0]
    for block in range(blocks.shape[0]):
        first = (blocks[block, 0] - origin) // heads
        for step in range(blocks[block, 1] // heads):
            row, position = first + step, blocks[block, 2] + step
            page = table[blocks[block, 3] + position // page_size]
            slot = pages[page, position % page_size]
            rms_norm(kv[row, :rank], kv_a_norm, facts.latent_eps, squares, sums, slot[:rank])
            rotate(kv[row, rank:], rotations[position], slot[rank:])
            for head in range(heads):
                rotate(q[row, head, nope:], rotations[position], query[row, head, rank:])

    flat_query = query.reshape(rows * heads, latent)
    for row in range(rows * heads):
        for column in range(latent):
            flat_query[row, column] *= facts.softmax_scale
    attended = np.empty((rows * heads, rank), np.float32)
    segments = facts.keys_segment, facts.values_segment
    attend(flat_query, pages, blocks, table, heads, segments, attended)

    values = np.empty((rows, heads * value_dim), np.float32)
    each = attended.reshape(rows, heads, rank)
    for head in range(heads):
        weight = layer.absorb_v + size * head * rank * value_dim
        value = values[:, head * value_dim : (head + 1) * value_dim]
        multiply(each[:, head], weight, narrow, facts.absorb_v_segment, value)
    multiply(values, layer.o, narrow, facts.o_segment, normed)
    for row in range(rows):
        for column in range(hidden):
            x[row, column] += normed[row, column]


@compiled
def _route(
    facts: Any, layer: Any, x: Floats, normed: Floats, topk_idx: Indices, topk_weights: Floats
) -> None:
    _norm_rows(x, layer.post_norm, facts.eps, normed)
    if layer.gate == 0:
        return
    rows, experts = x.shape[0], facts.experts
    scores = np.empty((rows, experts), np.float32)
    multiply(normed, layer.gate, facts.narrow, facts.gate_segment, scores)
    bias, biased = floats_at(layer.bias, experts), np.empty(experts, np.float32)
    best = np.empty(topk_idx.shape[1], np.float32)
    for row in range(rows):
        for expert in range(experts):
            scores[row, expert] = sigmoid(scores[row, expert])
            biased[expert] = scores[row, expert] + bias[expert]
        choose(
            scores[row],
            biased,
            facts.normalised != 0,
            facts.routed_scale,
            best,
            topk_idx[row],
            topk_weights[row],
        )


@compiled
def mlp_half(facts: Any, layer: Any, x: Floats, out: Floats) -> None:
    """The dense network or the shared expert.

    Args:
        facts, layer: one record each. x, out: [rows, hidden].
    """
    width = layer[0].width
    for start in range(0, x.shape[0], CHUNK):
        chunk = x[start : start + CHUNK]
        both = np.empty((chunk.shape[0], 2 * width), np.float32)
        multiply(chunk, layer[0].gate_up, facts[0].narrow, layer[0].gate_up_segment, both)
        hidden = np.empty((chunk.shape[0], width), np.float32)
        for row in range(chunk.shape[0]):
            for column in range(width):
                hidden[row, column] = silu(both[row, column]) * both[row, width + column]
        multiply(
            hidden,
            layer[0].down,
            facts[0].narrow,
            layer[0].down_segment,
            out[start : start + CHUNK],
        )


@compiled
def _norm_rows(x: Floats, weight: int, eps: np.float32, out: Floats) -> None:
    squares, sums = np.empty(x.shape[1], np.float32), np.empty((4, 32), np.float32)
    for row in range(x.shape[0]):
        rms_norm(x[row], floats_at(weight, x.shape[1]), eps, squares, sums, out[row])
