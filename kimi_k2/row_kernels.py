"""Compiled arithmetic of single rows, with the bits of the torch path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import carray, types

from kimi_k2.fma_tiles import Floats, Indices
from kimi_k2.jit import compiled
from kimi_k2.pointers import pointer_to

_LANES = 32
"""Floats that the library's sum takes at a time: four vectors of eight."""
_LEVELS = 4
_RUN = 16
_LEAST_TOTAL = np.float32(1e-20)


_to_pointer = pointer_to(types.float32)
_array = cast(Callable[[Any, tuple[int]], Floats], carray)


@compiled
def floats_at(address: int, size: int) -> Floats:
    """[size] float32 that lie at an address."""
    return _array(_to_pointer(address), (size,))


@compiled
def address_of(x: Floats) -> int:
    """Signed, as all other numbers are: a product would be compiled again for another kind."""
    return int(np.int64(x.ctypes.data))


@compiled
def add_up(x: Floats, sums: Floats) -> np.float32:
    """The sum of a row in the order of `torch.sum`, for up to 16 million elements.

    Every 32nd element goes to the same one of 32 sums. After 16 elements a sum moves up a level
    and starts again, as sums of the upper levels do after 16 of theirs. In the end the levels are
    added, then the four vectors of eight sums, and then the lanes to what was left over.

    Args:
        x: at least 8 elements. sums: [4, 32], overwritten.
    """
    size = x.shape[0]
    steps, vectors = size // _LANES, size // 8
    for level in range(_LEVELS):
        for lane in range(_LANES):
            sums[level, lane] = 0
    for step in range(steps):
        for lane in range(_LANES):
            sums[0, lane] += x[step * _LANES + lane]
        done, level = step + 1, 1
        while level < _LEVELS and done % _RUN == 0:
            for lane in range(_LANES):
                sums[level, lane] += sums[level - 1, lane]
                sums[level - 1, lane] = 0
            done //= _RUN
            level += 1
    for level in range(1, _LEVELS):
        for lane in range(_LANES):
            sums[0, lane] += sums[level, lane]
    for vector in range(4 * steps, vectors):
        for lane in range(8):
            sums[0, lane] += x[vector * 8 + lane]
    for vector in range(1, 4):
        for lane in range(8):
            sums[0, lane] += sums[0, vector * 8 + lane]
    total = np.float32(0)
    for place in range(vectors * 8, size):
        total += x[place]
    for lane in range(8):
        total += sums[0, lane]
    return total


@compiled
def rms_norm(
    x: Floats, weight: Floats, eps: np.float32, squares: Floats, sums: Floats, out: Floats
) -> None:
    """See `Numerics.rms_norm`; one row. squares: at least as long, overwritten."""
    size = x.shape[0]
    for place in range(size):
        squares[place] = x[place] * x[place]
    variance = add_up(squares[:size], sums) / np.float32(size)
    scale = np.float32(1) / np.sqrt(variance + eps)
    for place in range(size):
        out[place] = weight[place] * (x[place] * scale)


@compiled
def rotate(x: Floats, rotation: Floats, out: Floats) -> None:
    """See `Rotation.apply`; one row. rotation: [2, pairs], cos and sin."""
    pairs = rotation.shape[1]
    for pair in range(pairs):
        first, second = x[2 * pair], x[2 * pair + 1]
        cos, sin = rotation[0, pair], rotation[1, pair]
        out[pair] = first * cos - second * sin
        out[pairs + pair] = second * cos + first * sin


@compiled
def choose(
    scores: Floats,
    biased: Floats,
    normalised: bool,
    scaling: np.float32,
    best: Floats,
    topk_idx: Indices,
    topk_weights: Floats,
) -> None:
    """See `kimi_k2.gate.select`; one row, one group.

    Args:
        scores, biased: [experts]. best: [k], overwritten. topk_idx, topk_weights: [k], out.
    """
    k = topk_idx.shape[0]
    for expert in range(biased.shape[0]):
        score = biased[expert]
        if expert >= k and not score > best[k - 1]:
            continue
        place = min(expert, k - 1)
        while place > 0 and score > best[place - 1]:
            best[place], topk_idx[place] = best[place - 1], topk_idx[place - 1]
            place -= 1
        best[place], topk_idx[place] = score, expert
    for last in range(1, k):
        expert, place = topk_idx[last], last
        while place > 0 and topk_idx[place - 1] > expert:
            topk_idx[place] = topk_idx[place - 1]
            place -= 1
        topk_idx[place] = expert
    for place in range(k):
        topk_weights[place] = scores[topk_idx[place]]
    if normalised:
        total = topk_weights[0]
        for place in range(1, k):
            total += topk_weights[place]
        for place in range(k):
            topk_weights[place] /= total + _LEAST_TOTAL
    for place in range(k):
        topk_weights[place] *= scaling
