"""The compiled network of routed experts: no padding, no copies of weights, one call a layer.

Rows are copied by loops: assigning slices makes numba compile an error message, which takes longer
than all of the products.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import carray
from numba.core import types

from kimi_k2.exponential import silu
from kimi_k2.fma_tiles import Floats, Indices, narrow_product, product
from kimi_k2.int4_tiles import int4_product
from kimi_k2.jit import compiled
from kimi_k2.pointers import pointer_to

_ROWS = 64
"""Rows that an expert takes at once: what they become on the way stays in the cache."""
_WORD = 8


_floats_at = pointer_to(types.float32)


@compiled
def route(
    x: int,
    hidden: int,
    counts: Indices,
    slots: Indices,
    combine: npt.NDArray[np.bool_],
    factors: Floats,
    table: Indices,
    up_segment: int,
    down_segment: int,
    out: int,
) -> bool:
    """Sends rows through their experts and combines the rows that are marked.

    A marked row becomes the sum of factor * output over its experts in the order of their slots,
    each product and each sum rounded (`kimi_k2.combine`); any other row becomes the outputs of its
    experts, one after another.

    Args:
        x: address of float32 [R, hidden].
        counts: int64 [R], the number of a row's experts. combine: [R], which rows are marked.
        slots, factors: int64 and float32 [P], the experts of all rows.
        table: `table` of the weights.
        up_segment, down_segment: see `kimi_k2.fma_tiles`.
        out: address of float32 [N, hidden]; N is the number of marked rows and of the experts of
            the others.

    Returns: false, with nothing done, if the experts of a marked row do not ascend.
    """
    rows, pairs = counts.shape[0], slots.shape[0]
    width = table[6]
    row_of, place_of = np.empty(pairs, np.int64), np.empty(pairs, np.int64)
    ends = np.zeros(table[5] + 1, np.int64)
    pair, places = 0, 0
    for row in range(rows):
        last = -1
        for _ in range(counts[row]):
            slot = slots[pair]
            if combine[row] and slot <= last:
                return False
            last = slot
            row_of[pair], place_of[pair] = row, places
            ends[slot + 1] += 1
            pair += 1
            if not combine[row]:
                places += 1
        if combine[row]:
            places += 1
    used = np.empty(min(pairs, table[5]), np.int64)
    experts = 0
    for slot in range(table[5]):
        if ends[slot + 1] > 0:
            used[experts] = slot
            experts += 1
        ends[slot + 1] += ends[slot]
    order = np.empty(pairs, np.int64)
    for pair in range(pairs):
        slot = slots[pair]
        order[ends[slot]] = pair
        ends[slot] += 1
    given = carray(_floats_at(x), (rows, hidden))
    wanted = carray(_floats_at(out), (places, hidden))
    place = 0
    for row in range(rows):
        if combine[row]:
            for column in range(hidden):
                wanted[place, column] = 0
        place += 1 if combine[row] else counts[row]
    most = min(pairs, _ROWS)
    gathered, returned = np.empty((most, hidden), np.float32), np.empty((most, hidden), np.float32)
    gate_up, middle = np.empty((most, 2 * width), np.float32), np.empty((most, width), np.float32)
    start = 0
    for expert in range(experts):
        slot, following = used[expert], used[min(expert + 1, experts - 1)]
        end = ends[slot]
        while start < end:
            taken = min(_ROWS, end - start)
            for n in range(taken):
                row = row_of[order[start + n]]
                for column in range(hidden):
                    gathered[n, column] = given[row, column]
            _multiply(
                gathered, taken, table[0], table[1], table[2], slot, following, up_segment,
                table[7], gate_up,
            )  # fmt: skip
            for n in range(taken):
                for column in range(width):
                    middle[n, column] = silu(gate_up[n, column]) * gate_up[n, width + column]
            _multiply(
                middle, taken, table[0], table[3], table[4], slot, following, down_segment,
                table[7], returned,
            )  # fmt: skip
            for n in range(taken):
                pair = order[start + n]
                row, place = row_of[pair], place_of[pair]
                if combine[row]:
                    factor = factors[pair]
                    for column in range(hidden):
                        wanted[place, column] += returned[n, column] * factor
                else:
                    for column in range(hidden):
                        wanted[place, column] = returned[n, column]
            start += taken
    return True


@compiled
def _multiply(
    a: Floats,
    rows: int,
    kind: int,
    weights: int,
    scales: int,
    slot: int,
    following: int,
    segment: int,
    group: int,
    out: Floats,
) -> None:
    """out = a times the matrix of `slot`, made of `kind` bytes a weight, or of INT4 if that is 0;
    INT4 of the slot that is `following` is fetched into the cache meanwhile."""
    inner, columns = a.shape[1], out.shape[1]
    a_at, out_at = int(np.int64(a.ctypes.data)), int(np.int64(out.ctypes.data))
    size = inner * columns
    if kind == 4:
        b = weights + 4 * slot * size
        product(a_at, inner, 1, rows, b, columns, columns, out_at, columns, inner, segment)
    elif kind == 2:
        b = weights + 2 * slot * size
        narrow_product(a_at, inner, 1, rows, b, columns, columns, out_at, columns, inner, segment)
    else:
        words, halves = 4 * size // _WORD, 2 * size // group
        b, s = weights + slot * words, scales + slot * halves
        soon, soon_too = weights + following * words, scales + following * halves
        int4_product(
            a_at, inner, rows, b, s, columns, out_at, columns, inner, segment, group, soon,
            soon_too,
        )  # fmt: skip
