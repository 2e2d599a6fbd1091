"""Compiled steps of a forward pass: all the arithmetic between two dispatches in one call.

A call works on some rows of a pass, so that several threads can share a step without waiting for
one another within it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kimi_k2.fma_tiles import Floats, Indices
from kimi_k2.jit import compiled
from kimi_k2.layer_kernels import CHUNK, attention_half, mlp_half
from kimi_k2.panel_kernels import multiply
from kimi_k2.row_kernels import rms_norm


@compiled
def advance(
    facts: Any,
    before: Any,
    layer: Any,
    pages: Floats,
    blocks: Indices,
    table: Indices,
    rotations: Floats,
    x: Floats,
    given: Floats,
    mlp: Floats,
    routed: Floats,
    normed: Floats,
    topk_idx: Indices,
    topk_weights: Floats,
) -> None:
    """`finish_layer` of the layer before and `attention_half` of this one, for the blocks' rows."""
    heads = facts[0].heads
    last = blocks.shape[0] - 1
    start, end = blocks[0, 0] // heads, (blocks[last, 0] + blocks[last, 1]) // heads
    finish_layer(facts, before, x, given, mlp, routed, start, end)
    attention_half(facts, layer, pages, blocks, table, rotations, x, normed, topk_idx, topk_weights)


@compiled
def finish_layer(
    facts: Any,
    layer: Any,
    x: Floats,
    given: Floats,
    mlp: Floats,
    routed: Floats,
    start: int,
    end: int,
) -> None:
    """Adds to rows `start` to `end` of the residual stream what a layer's experts gave.

    Args:
        facts, layer: one record each; nothing is done where the layer's `width` is 0.
        x: [rows, hidden]. given: the same, what the experts were given.
        mlp: what `mlp_half` made of it; of no rows if that is still to be done.
        routed: the routed experts' rows; of no rows in a dense layer.
    """
    if layer[0].width == 0:
        return
    for first in range(start, end, CHUNK):
        last = min(end, first + CHUNK)
        if mlp.shape[0] == 0:
            added = np.empty((last - first, x.shape[1]), np.float32)
            mlp_half(facts, layer, given[first:last], added)
        else:
            added = mlp[first:last]
        for row in range(first, last):
            if routed.shape[0] == 0:
                for column in range(x.shape[1]):
                    x[row, column] += added[row - first, column]
            else:
                for column in range(x.shape[1]):
                    x[row, column] += routed[row, column] + added[row - first, column]


@compiled
def finish(
    facts: Any,
    before: Any,
    norm: Floats,
    head: int,
    x: Floats,
    given: Floats,
    mlp: Floats,
    routed: Floats,
    start: int,
    end: int,
    chosen: Indices,
    logits: Floats,
) -> int:
    """`finish_layer` of the last layer for rows `start` to `end`, and the logits of chosen ones.

    Args:
        facts: one record. norm: [hidden]. head: the address of the panels of `lm_head`.
        chosen: rows between `start` and `end`. logits: [len(chosen), vocab], out.

    Returns: how many rows from `start` to `end` are not finite.
    """
    finish_layer(facts, before, x, given, mlp, routed, start, end)
    squares, sums = np.empty(x.shape[1], np.float32), np.empty((4, 32), np.float32)
    normed = np.empty((chosen.shape[0], x.shape[1]), np.float32)
    for place in range(chosen.shape[0]):
        rms_norm(x[chosen[place]], norm, facts[0].eps, squares, sums, normed[place])
    multiply(normed, head, facts[0].narrow, facts[0].head_segment, logits)
    broken = 0
    for row in range(start, end):
        # A difference of a number from itself is 0, of anything else NaN, which no sum loses.
        differences = np.float32(0)
        for column in range(x.shape[1]):
            squares[column] = x[row, column] - x[row, column]
        for column in range(x.shape[1]):
            differences += squares[column]
        broken += differences != 0
    return broken
