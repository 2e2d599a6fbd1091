"""Compiled paged attention: keys and values are read where they lie, up to the last one seen."""

from __future__ import annotations

import numpy as np

from kimi_k2.fma_tiles import Floats, Indices, product
from kimi_k2.jit import compiled


@compiled
def page_scores(
    query: Floats,
    pages: Floats,
    blocks: Indices,
    table: Indices,
    span: tuple[int, int, int],
    segment: int,
    highest: Floats,
    scores: Floats,
    fades: Floats,
) -> None:
    """What is to be exponentiated for each row of each block and each page of a range.

    Args:
        query: [T * heads, latent]. pages: [num_blocks, page, latent].
        blocks: [blocks, 5]: first row, rows, position of the first, start in `table`, pages.
        span: first page, the page after the last, heads.
        highest: [T * heads], each row's greatest score so far; updated.
        scores: [rows x pages, page], out: less the greatest; -inf for keys a row may not see.
        fades: [rows x pages], out: by how much the greatest grew, negative.
    """
    first_page, end_page, heads = span
    page_size, latent = pages.shape[1], pages.shape[2]
    longest = 0
    for block in range(blocks.shape[0]):
        longest = max(longest, blocks[block, 1])
    wide = (longest + 3) // 4 * 4
    turned = np.zeros((latent, wide), np.float32)
    products = np.empty((page_size, wide), np.float32)
    at = 0
    for block in range(blocks.shape[0]):
        start, rows, position, tables, count = blocks[block]
        if count <= first_page:
            continue
        for row in range(rows):
            for k in range(latent):
                turned[k, row] = query[start + row, k]
        for page in range(first_page, min(end_page, count)):
            before = position - page * page_size
            keys = min(page_size, before + (rows - 1) // heads + 1)
            product(
                pages[table[tables + page]].ctypes.data,
                latent,
                1,
                keys,
                turned.ctypes.data,
                wide,
                (rows + 3) // 4 * 4,
                products.ctypes.data,
                wide,
                latent,
                segment,
            )
            for row in range(rows):
                visible = min(page_size, before + row // heads + 1)
                most = highest[start + row]
                for key in range(visible):
                    most = max(most, products[key, row])
                for key in range(visible):
                    scores[at, key] = products[key, row] - most
                for key in range(max(0, visible), page_size):
                    scores[at, key] = -np.inf
                fades[at] = highest[start + row] - most
                highest[start + row] = most
                at += 1


@compiled
def page_values(
    pages: Floats,
    blocks: Indices,
    table: Indices,
    span: tuple[int, int, int],
    segment: int,
    weights: Floats,
    sums: Floats,
    fades: Floats,
    totals: Floats,
    out: Floats,
) -> None:
    """Merges the pages of a range in their order into each row's result.

    Args:
        weights, sums, fades: exponentials of `scores`, their sums, exponentials of `fades`.
        totals: [T * heads], sums of weights so far; updated.
        out: [T * heads, value_dim], updated; divided by `totals` after a block's last page.
    """
    first_page, end_page, heads = span
    page_size, latent = pages.shape[1], pages.shape[2]
    value_dim = out.shape[1]
    longest = 0
    for block in range(blocks.shape[0]):
        longest = max(longest, blocks[block, 1])
    values = np.empty((longest, value_dim), np.float32)
    at = 0
    for block in range(blocks.shape[0]):
        start, rows, position, tables, count = blocks[block]
        for page in range(first_page, min(end_page, count)):
            keys = min(page_size, position - page * page_size + (rows - 1) // heads + 1)
            product(
                weights[at:].ctypes.data,
                page_size,
                1,
                rows,
                pages[table[tables + page]].ctypes.data,
                latent,
                value_dim,
                values.ctypes.data,
                value_dim,
                keys,
                segment,
            )
            for row in range(rows):
                fade = fades[at]
                totals[start + row] = totals[start + row] * fade + sums[at]
                for column in range(value_dim):
                    faded = out[start + row, column] * fade
                    out[start + row, column] = faded + values[row, column]
                at += 1
        if first_page < count <= end_page:
            for row in range(start, start + rows):
                for column in range(value_dim):
                    out[row, column] /= totals[row]
