"""Compiled matrix products on CPU float32 that round exactly as the library's do.

The library sums a product over its inner dimension in segments: within a segment one fused
multiply-add after another, then the segments' sums one after another. The length of a segment
depends on the inner size and the machine and is found at start-up (`kimi_k2.compiled_proof`). A
tile does the same for some rows and columns in registers, so its bits are those of the library,
but it needs no padding, no copies and no call a block.

Imported only where kernels run: a process that computes on a GPU never loads numba.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kimi_k2.jit import compiled
from kimi_k2.tile_code import many_registers, size_function, tile_function

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_WIDE, _NARROW = np.float32(0), np.uint16(0)
"""Their types say what B is made of: float32, or the bits of bfloat16."""

_ROOM = many_registers()
_4x64 = tile_function(4, 4, 16)
_2x64 = tile_function(2, 4, 16)
_1x64 = tile_function(1, 4, 16)
_2x32 = tile_function(2, 2, 16)
_8x16 = tile_function(8, 1, 16)
_6x16 = tile_function(6, 1, 16)
_4x16 = tile_function(4, 1, 16)
_2x16 = tile_function(2, 1, 16)
_1x16 = tile_function(1, 1, 16)
_32x4 = tile_function(32, 1, 4, quads=True)
_quads = tile_function(16, 1, 4, quads=True)
_8x4 = tile_function(8, 1, 4)
_1x4 = tile_function(1, 1, 4)
_8x1 = tile_function(8, 1, 1)
_1x1 = tile_function(1, 1, 1)
_size_of = size_function()


@compiled
def _width(rows: int, left: int) -> int:
    """Columns of the tiles that take the next columns of `left`: as many sums as registers hold."""
    if left < 16:
        return 4 if left >= 4 else 1
    if left >= 64 and (_ROOM or rows == 1):
        return 64
    if left >= 32 and rows == 2:
        return 32
    return 16


@compiled
def _product(
    a: int,
    a_row: int,
    a_column: int,
    rows: int,
    b: int,
    b_row: int,
    columns: int,
    c: int,
    c_row: int,
    inner: int,
    segment: int,
    kind: np.float32 | np.uint16,
) -> None:
    """`product` or `narrow_product`, as `kind` says."""
    size = _size_of(kind)
    column = 0
    while column < columns:
        left = columns - column
        width = _width(rows, left)
        right, out = b + size * column, c + 4 * column
        row = 0
        while row < rows:
            x, y, more = a + 4 * row * a_row, out + 4 * row * c_row, rows - row
            if width == 64:
                if _ROOM and more >= 4:
                    _4x64(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 4
                elif _ROOM and more >= 2:
                    _2x64(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 2
                else:
                    _1x64(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 1
            elif width == 32:
                _2x32(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                row += 2
            elif width == 16:
                if _ROOM and more >= 8:
                    _8x16(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 8
                elif not _ROOM and more >= 6:
                    _6x16(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 6
                elif not _ROOM and more >= 4:
                    _4x16(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 4
                elif not _ROOM and more >= 2:
                    _2x16(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 2
                else:
                    _1x16(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 1
            elif width == 4:
                fours = a_column == 1 and inner % 4 == 0 and segment % 4 == 0
                if fours and _ROOM and more >= 32:
                    _32x4(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 32
                elif fours and more >= 16:
                    _quads(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 16
                elif more >= 8:
                    _8x4(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 8
                else:
                    _1x4(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                    row += 1
            elif more >= 8:
                _8x1(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                row += 8
            else:
                _1x1(x, a_row, a_column, right, b_row, y, c_row, inner, segment, kind)
                row += 1
        column += width


@compiled
def product(
    a: int,
    a_row: int,
    a_column: int,
    rows: int,
    b: int,
    b_row: int,
    columns: int,
    c: int,
    c_row: int,
    inner: int,
    segment: int,
) -> None:
    """C [rows, columns] = A [rows, inner] B [inner, columns]; arguments as `tile_function` says."""
    _product(a, a_row, a_column, rows, b, b_row, columns, c, c_row, inner, segment, _WIDE)


@compiled
def narrow_product(
    a: int,
    a_row: int,
    a_column: int,
    rows: int,
    b: int,
    b_row: int,
    columns: int,
    c: int,
    c_row: int,
    inner: int,
    segment: int,
) -> None:
    """The same with a bfloat16 B: half the bytes, and the bits of `product` on B as float32."""
    _product(a, a_row, a_column, rows, b, b_row, columns, c, c_row, inner, segment, _NARROW)


@compiled
def head_products(
    x: int,
    x_row: int,
    x_head: int,
    rows: int,
    weight: int,
    columns: int,
    heads: int,
    out: int,
    inner: int,
    segment: int,
) -> None:
    """out [rows, heads, columns] = x [rows, heads, inner] times weight [heads, inner, columns]."""
    for head in range(heads):
        a, b = x + 4 * head * x_head, weight + 4 * head * inner * columns
        c, c_row = out + 4 * head * columns, heads * columns
        product(a, x_row, 1, rows, b, columns, columns, c, c_row, inner, segment)
