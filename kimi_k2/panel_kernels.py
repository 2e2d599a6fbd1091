"""Compiled products of rows with weights that lie in panels (`kimi_k2.panels`)."""

from __future__ import annotations

from kimi_k2.fma_tiles import Floats, narrow_product, product
from kimi_k2.jit import compiled
from kimi_k2.panels import PANEL
from kimi_k2.row_kernels import address_of


@compiled
def multiply(x: Floats, weight: int, narrow: int, segment: int, out: Floats) -> None:
    """out [rows, columns] = x [rows, inner] times a weight [inner, columns] in panels.

    Neighbours in a row of `x` and `out` are neighbours in memory; rows need not be.
    """
    rows, inner = x.shape
    a, c, columns = address_of(x), address_of(out), out.shape[1]
    a_row, c_row = x.strides[0] // 4, out.strides[0] // 4
    _multiply_panels(a, a_row, rows, weight, narrow, columns, c, c_row, inner, segment)


@compiled
def _multiply_panels(
    a: int,
    a_row: int,
    rows: int,
    weight: int,
    narrow: int,
    columns: int,
    c: int,
    c_row: int,
    inner: int,
    segment: int,
) -> None:
    for first in range(0, columns, PANEL):
        width = min(PANEL, columns - first)
        if narrow != 0:
            b = weight + 2 * first * inner
            narrow_product(a, a_row, 1, rows, b, width, width, c, c_row, inner, segment)
        else:
            b = weight + 4 * first * inner
            product(a, a_row, 1, rows, b, width, width, c, c_row, inner, segment)
        c += 4 * PANEL
