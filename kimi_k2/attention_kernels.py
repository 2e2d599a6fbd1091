"""Compiled paged attention: a page is read once, where it lies, up to the last key seen."""

from __future__ import annotations

import numpy as np

from kimi_k2.exponential import exp2
from kimi_k2.fma_tiles import Floats, Indices, product
from kimi_k2.jit import compiled

_LANES = 8
_VECTORS = 4


@compiled
def attend(
    query: Floats,
    pages: Floats,
    blocks: Indices,
    table: Indices,
    heads: int,
    segments: tuple[int, int],
    out: Floats,
) -> None:
    """Softmax attention to the base 2, page after page.

    Args:
        query: [T * heads, latent]. pages: [num_blocks, page, latent].
        blocks: [blocks, 5]: first row, rows, position of the first, start in `table`, pages.
        segments: of the product with keys and of the one with values.
        out: [T * heads, value_dim]; rows of no block are left alone.
    """
    page_size, latent = pages.shape[1], pages.shape[2]
    value_dim = out.shape[1]
    longest = 4
    for block in range(blocks.shape[0]):
        longest = max(longest, (blocks[block, 1] + 3) // 4 * 4)
    turned = np.zeros((latent, longest), np.float32)
    scores = np.empty((page_size, longest), np.float32)
    weights = np.empty((longest, page_size), np.float32)
    values = np.empty((longest, value_dim), np.float32)
    highest = np.empty(longest, np.float32)
    totals = np.empty(longest, np.float32)
    fades = np.empty(longest, np.float32)
    for block in range(blocks.shape[0]):
        start, rows, position, tables, count = blocks[block]
        wide = (rows + 3) // 4 * 4
        highest[:] = -np.inf
        totals[:] = 0
        out[start : start + rows] = 0
        for row in range(rows):
            for k in range(latent):
                turned[k, row] = query[start + row, k]
        for page in range(count):
            before = position - page * page_size
            keys = min(page_size, before + (rows - 1) // heads + 1)
            memory = pages[table[tables + page]].ctypes.data
            product(
                memory,
                latent,
                1,
                min(page_size, (keys + 15) // 16 * 16),
                turned.ctypes.data,
                longest,
                wide,
                scores.ctypes.data,
                longest,
                latent,
                segments[0],
            )
            for row in range(rows):
                visible = max(0, min(page_size, before + row // heads + 1))
                most = highest[row]
                for key in range(visible):
                    weights[row, key] = scores[key, row]
                    most = max(most, scores[key, row])
                for key in range(visible):
                    weights[row, key] = exp2(weights[row, key] - most)
                weights[row, visible:] = 0
                fades[row] = exp2(highest[row] - most)
                highest[row] = most
                totals[row] = totals[row] * fades[row] + _sum(weights[row])
            product(
                weights.ctypes.data,
                page_size,
                1,
                rows,
                memory,
                latent,
                value_dim,
                values.ctypes.data,
                value_dim,
                keys,
                segments[1],
            )
            for row in range(rows):
                for column in range(value_dim):
                    faded = out[start + row, column] * fades[row]
                    out[start + row, column] = faded + values[row, column]
        for row in range(rows):
            for column in range(value_dim):
                out[start + row, column] /= totals[row]


@compiled
def _sum(x: Floats) -> np.float32:
    """In the library's order: vectors dealt out to four sums, those added, then the lanes."""
    lanes = np.zeros((_VECTORS, _LANES), np.float32)
    for first in range(0, x.shape[0], _VECTORS * _LANES):
        for vector in range(_VECTORS):
            for lane in range(_LANES):
                lanes[vector, lane] += x[first + vector * _LANES + lane]
    total = np.float32(0)
    for lane in range(_LANES):
        one = lanes[0, lane]
        for vector in range(1, _VECTORS):
            one += lanes[vector, lane]
        total += one
    return total
