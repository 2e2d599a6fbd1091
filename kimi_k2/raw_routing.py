"""Rows through their experts, of which everything lies in memory as a message brings it."""

from __future__ import annotations

import numpy as np
from numba import carray
from numba.core import types

from kimi_k2.ffn_kernels import route
from kimi_k2.fma_tiles import Indices
from kimi_k2.jit import compiled
from kimi_k2.pointers import pointer_to
from kimi_k2.row_kernels import floats_at

_bytes_at = pointer_to(types.uint8)
_halves_at = pointer_to(types.uint16)


@compiled
def route_raw(
    counts: int,
    combine: int,
    experts: int,
    weights: int,
    x: int,
    rows: int,
    pairs: int,
    top_k: int,
    whole: bool,
    hidden: int,
    slots: Indices,
    table: Indices,
    up_segment: int,
    down_segment: int,
    out: int,
) -> bool:
    """Checks a request and computes it, see `kimi_k2.ffn_kernels.route`.

    Args:
        counts, combine, experts, weights, x: addresses of u8 [rows], u8 [rows], u16 [pairs],
            float32 [pairs] and float32 [rows, hidden].
        whole: whether every row is to be combined, else none is.
        slots: [experts of the layer], the slot of each, -1 where it is not held.
        out: address of float32 [rows if whole else pairs, hidden].

    Returns: false, with nothing done, where anything is not as it has to be: a row of no or too
        many experts, or of too few to be combined; another `combine` than `whole` says; experts
        that do not ascend in a row, or are not held; weights that are not finite.
    """
    counts_of = carray(_bytes_at(counts), (rows,))
    combine_of = carray(_bytes_at(combine), (rows,))
    asked = carray(_halves_at(experts), (pairs,))
    factors = floats_at(weights, pairs)
    sizes, marked = np.empty(rows, np.int64), np.empty(rows, np.bool_)
    places = np.empty(pairs, np.int64)
    pair = 0
    for row in range(rows):
        count = np.int64(counts_of[row])
        if count < 1 or count > top_k or pair + count > pairs:
            return False
        if combine_of[row] != np.uint8(whole) or (whole and count != top_k):
            return False
        sizes[row], marked[row] = count, whole
        last = np.int64(-1)
        for _ in range(count):
            expert = np.int64(asked[pair])
            if expert <= last or expert >= slots.shape[0] or slots[expert] < 0:
                return False
            # A difference of a number from itself is 0, of anything else NaN.
            if factors[pair] - factors[pair] != 0:
                return False
            places[pair] = slots[expert]
            last = expert
            pair += 1
    if pair != pairs:
        return False
    return route(x, hidden, sizes, places, marked, factors, table, up_segment, down_segment, out)
