"""Compiled paged attention: a page is read once, where it lies, up to the last key seen."""

from __future__ import annotations

import numpy as np

from kimi_k2.exponential import exp2
from kimi_k2.fma_tiles import Floats, Indices, product
from kimi_k2.jit import compiled
from kimi_k2.row_kernels import address_of
from kimi_k2.score_tile import KEYS, ROWS, score

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
            Rows count from the first block's.
        segments: of the product with keys and of the one with values.
        out: [T * heads, value_dim]; rows of no block are left alone.
    """
    page_size, latent = pages.shape[1], pages.shape[2]
    value_dim, page_bytes = out.shape[1], 4 * page_size * latent
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
    few = latent % 4 == 0 and segments[0] % 4 == 0 and page_size % KEYS == 0
    memory, origin = address_of(pages), blocks[0, 0]
    for block in range(blocks.shape[0]):
        start, rows, position, tables, count = blocks[block]
        start -= origin
        wide = (rows + 3) // 4 * 4
        for row in range(rows):
            highest[row], totals[row] = -np.inf, 0
            for column in range(value_dim):
                out[start + row, column] = 0
        for k in range(latent):
            for row in range(rows):
                turned[k, row] = query[start + row, k]
        for page in range(count):
            before = position - page * page_size
            keys = min(page_size, before + (rows - 1) // heads + 1)
            here = memory + table[tables + page] * page_bytes
            a, c = address_of(turned), address_of(scores)
            if few and wide == ROWS:
                wanted, wanted_keys = 0, 0
                if page + 1 < count:
                    wanted = memory + table[tables + page + 1] * page_bytes
                    wanted_keys = before - page_size + 1
                elif block + 1 < blocks.shape[0]:
                    wanted = memory + table[blocks[block + 1, 3]] * page_bytes
                    wanted_keys = blocks[block + 1, 2] + 1
                score(here, keys, latent, a, longest, c, longest, segments[0], wanted, wanted_keys)
            else:
                tall = min(page_size, (keys + 15) // 16 * 16)
                product(here, latent, 1, tall, a, longest, wide, c, longest, latent, segments[0])
            for row in range(rows):
                visible = max(0, min(page_size, before + row // heads + 1))
                highest[row], fades[row] = _soften(scores, row, visible, highest[row], weights[row])
                totals[row] = totals[row] * fades[row] + _sum(weights[row])
            a, c = address_of(weights), address_of(values)
            product(a, page_size, 1, rows, here, latent, value_dim, c, value_dim, keys, segments[1])
            for row in range(rows):
                for column in range(value_dim):
                    faded = out[start + row, column] * fades[row]
                    out[start + row, column] = faded + values[row, column]
        for row in range(rows):
            for column in range(value_dim):
                out[start + row, column] /= totals[row]


@compiled
def _soften(
    scores: Floats, row: int, visible: int, highest: np.float32, weights: Floats
) -> tuple[np.float32, np.float32]:
    """Powers of two of one row's scores, less the highest score so far; 0 where it may not look.

    Args:
        scores: [keys, rows]. weights: [keys], out.

    Returns: the highest score so far, and what earlier pages' results are to be multiplied by.
    """
    most = highest
    for key in range(visible):
        weights[key] = scores[key, row]
        most = max(most, scores[key, row])
    for key in range(visible):
        weights[key] = exp2(weights[key] - most)
    for key in range(visible, weights.shape[0]):
        weights[key] = 0
    return most, exp2(highest - most)


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
