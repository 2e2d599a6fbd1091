"""Compiled matrix products on CPU float32 that round exactly as the library's do.

The library sums a product over its inner dimension in segments: within a segment one fused
multiply-add after another, then the segments' sums one after another. The length of a segment
depends on the inner size and the machine and is found at start-up (`kimi_k2.compiled_proof`). A
tile does the same for some rows and columns in registers, so its bits are those of the library,
but it needs no padding, no copies and no call a block.

Imported only where kernels run: a process that computes on a GPU never loads numba. Machine code
is kept by the file of the outermost compiled function, so a change here reaches kernels that were
kept earlier only when their own files change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kimi_k2.jit import compiled

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_FLOAT = ir.FloatType()
_INDEX = ir.IntType(64)
_ARGUMENTS = 9


def _tile(rows: int, vectors: int, lanes: int, quads: bool = False) -> Callable[..., None]:
    """A function of one tile of `rows` x (`vectors` * `lanes`): C = A B.

    With `quads` the tile has 4 columns, a vector holds 4 rows of them, the inner size and the
    segment are multiples of 4, and columns of A are adjacent: attention of few heads.

    Its arguments, all int64: the address of A, the strides of A's rows and columns, the address
    of B, the stride of B's rows, the address of C, the stride of C's rows, the inner size, the
    segment. Strides count elements; columns of B and C are adjacent.
    """

    def tile(
        _typing: Any, a: Any, ar: Any, ac: Any, b: Any, br: Any, c: Any, cr: Any, k: Any, s: Any
    ) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            if quads:
                _emit_quads(builder, arguments, rows)
            else:
                _emit(builder, arguments, rows, vectors, lanes)
            return context.get_dummy_value()

        return types.none(*(types.int64,) * _ARGUMENTS), emit

    return cast(Callable[..., None], intrinsic(tile))


def _emit(builder: Any, arguments: Any, rows: int, vectors: int, lanes: int) -> None:
    a, a_row, a_column, b, b_row, c, c_row, inner, segment = arguments
    kind = _FLOAT if lanes == 1 else ir.VectorType(_FLOAT, lanes)
    name = "llvm.fma.f32" if lanes == 1 else f"llvm.fma.v{lanes}f32"
    signature = ir.FunctionType(kind, [kind] * 3)
    fma = cgutils.get_or_insert_function(builder.module, signature, name)
    places = [(row, vector) for row in range(rows) for vector in range(vectors)]
    sums = {place: cgutils.alloca_once(builder, kind) for place in places}
    totals = {place: cgutils.alloca_once(builder, kind) for place in places}

    def constant(value: float) -> Any:
        return ir.Constant(kind, value if lanes == 1 else [value] * lanes)

    def pointer(base: Any, offset: Any, kind: Any) -> Any:
        place = builder.add(base, builder.mul(offset, _INDEX(4)))
        return builder.inttoptr(place, kind.as_pointer())

    def splat(value: Any) -> Any:
        if lanes == 1:
            return value
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _INDEX(0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        return builder.shuffle_vector(first, first, mask)

    def loop(first: Any, end: Any, step: Any) -> Any:
        return cgutils.for_range_slice(builder, first, end, step, _INDEX)

    for total in totals.values():
        builder.store(constant(-0.0), total)
    with loop(_INDEX(0), inner, segment) as (first, _):
        for one in sums.values():
            builder.store(constant(0.0), one)
        end = builder.add(first, segment)
        end = builder.select(builder.icmp_signed("<", end, inner), end, inner)
        with loop(first, end, _INDEX(1)) as (k, _):
            row_of_b = builder.mul(k, b_row)
            right = []
            for vector in range(vectors):
                offset = builder.add(row_of_b, _INDEX(vector * lanes))
                right.append(builder.load(pointer(b, offset, kind), align=4))
            for row in range(rows):
                offset = builder.add(builder.mul(_INDEX(row), a_row), builder.mul(k, a_column))
                left = splat(builder.load(pointer(a, offset, _FLOAT)))
                for vector in range(vectors):
                    one = sums[row, vector]
                    fused = builder.call(fma, [left, right[vector], builder.load(one)])
                    builder.store(fused, one)
        for place in places:
            total = builder.load(totals[place])
            builder.store(builder.fadd(total, builder.load(sums[place])), totals[place])
    for row, vector in places:
        offset = builder.add(builder.mul(_INDEX(row), c_row), _INDEX(vector * lanes))
        builder.store(builder.load(totals[row, vector]), pointer(c, offset, kind), align=4)


def _emit_quads(builder: Any, arguments: Any, rows: int) -> None:
    a, a_row, _, b, b_row, c, c_row, inner, segment = arguments
    quad, kind = ir.VectorType(_FLOAT, 4), ir.VectorType(_FLOAT, 16)
    signature = ir.FunctionType(kind, [kind] * 3)
    fma = cgutils.get_or_insert_function(builder.module, signature, "llvm.fma.v16f32")
    groups = range(rows // 4)
    sums = [cgutils.alloca_once(builder, kind) for _ in groups]
    totals = [cgutils.alloca_once(builder, kind) for _ in groups]

    def pointer(base: Any, offset: Any) -> Any:
        place = builder.add(base, builder.mul(offset, _INDEX(4)))
        return builder.inttoptr(place, quad.as_pointer())

    def shuffle(one: Any, other: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
        return builder.shuffle_vector(one, other, mask)

    def loop(first: Any, end: Any, step: Any) -> Any:
        return cgutils.for_range_slice(builder, first, end, step, _INDEX)

    for total in totals:
        builder.store(ir.Constant(kind, [-0.0] * 16), total)
    with loop(_INDEX(0), inner, segment) as (first, _):
        for one in sums:
            builder.store(ir.Constant(kind, [0.0] * 16), one)
        end = builder.add(first, segment)
        end = builder.select(builder.icmp_signed("<", end, inner), end, inner)
        with loop(first, end, _INDEX(4)) as (k, _):
            right = []
            for step in range(4):
                offset = builder.mul(builder.add(k, _INDEX(step)), b_row)
                four = builder.load(pointer(b, offset), align=4)
                right.append(shuffle(four, four, [0, 1, 2, 3] * 4))
            for group in groups:
                left = []
                for row in range(4 * group, 4 * group + 4):
                    offset = builder.add(builder.mul(_INDEX(row), a_row), k)
                    left.append(builder.load(pointer(a, offset), align=4))
                low = shuffle(left[0], left[1], list(range(8)))
                high = shuffle(left[2], left[3], list(range(8)))
                block = shuffle(low, high, list(range(16)))
                one = builder.load(sums[group])
                for step in range(4):
                    spread = shuffle(block, block, [4 * (n // 4) + step for n in range(16)])
                    one = builder.call(fma, [spread, right[step], one])
                builder.store(one, sums[group])
        for group in groups:
            total = builder.load(totals[group])
            builder.store(builder.fadd(total, builder.load(sums[group])), totals[group])
    for group in groups:
        total = builder.load(totals[group])
        for row in range(4):
            four = shuffle(total, total, list(range(4 * row, 4 * row + 4)))
            offset = builder.mul(_INDEX(4 * group + row), c_row)
            builder.store(four, pointer(c, offset), align=4)


_4x64 = _tile(4, 4, 16)
_2x64 = _tile(2, 4, 16)
_1x64 = _tile(1, 4, 16)
_8x16 = _tile(8, 1, 16)
_1x16 = _tile(1, 1, 16)
_32x4 = _tile(32, 1, 4, quads=True)
_16x4 = _tile(16, 1, 4)
_1x4 = _tile(1, 1, 4)
_8x1 = _tile(8, 1, 1)
_1x1 = _tile(1, 1, 1)


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
    """C [rows, columns] = A [rows, inner] B [inner, columns]; see `_tile` for the arguments."""
    column = 0
    while column < columns:
        left = columns - column
        right, out = b + 4 * column, c + 4 * column
        row = 0
        while row < rows:
            x, y, more = a + 4 * row * a_row, out + 4 * row * c_row, rows - row
            if left >= 64:
                if more >= 4:
                    _4x64(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                    row += 4
                elif more >= 2:
                    _2x64(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                    row += 2
                else:
                    _1x64(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                    row += 1
            elif left >= 16:
                if more >= 8:
                    _8x16(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                    row += 8
                else:
                    _1x16(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                    row += 1
            elif left >= 4:
                if more >= 32 and a_column == 1 and inner % 4 == 0 and segment % 4 == 0:
                    _32x4(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                    row += 32
                elif more >= 16:
                    _16x4(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                    row += 16
                else:
                    _1x4(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                    row += 1
            elif more >= 8:
                _8x1(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                row += 8
            else:
                _1x1(x, a_row, a_column, right, b_row, y, c_row, inner, segment)
                row += 1
        column += 64 if left >= 64 else 16 if left >= 16 else 4 if left >= 4 else 1


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
