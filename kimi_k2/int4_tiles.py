"""Compiled matrix products with an INT4 B, dequantised in registers.

A weight is `bfloat16(q * scale)`. Of q times s, with s the scale as a float, p = q * (65537 s)
rounds at the eighth bit exactly where bfloat16 does, since q * s has 12 significant bits; then
p - q * (65536 s) is the weight, exactly, where neither is denormal or infinite
(`PackedExperts.exact`). The sums are those of `kimi_k2.fma_tiles`, so the bits are those of a
product with the dequantised weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kimi_k2.expert_size import LANES
from kimi_k2.jit import compiled
from kimi_k2.tile_code import many_registers

NIBBLES = 8

_FLOAT = ir.FloatType()
_INDEX = ir.IntType(64)
_INTEGER = ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTEGERS = ir.VectorType(_INTEGER, LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_ARGUMENTS = 12


def _tile(rows: int, vectors: int) -> Callable[..., None]:
    """A function of one tile of `rows` x (`vectors` * LANES): C = A B.

    Its arguments, all int64: the address of A, the stride of A's rows, the addresses of B's words
    and scales, the stride of both's rows, the address of C, the stride of C's rows, the inner
    size, the segment, inner elements a scale, and the addresses of words and of scales to fetch
    into the cache meanwhile. Strides count elements; columns of A, B and C are adjacent.
    """

    def tile(
        _typing: Any,
        a: Any,
        ar: Any,
        b: Any,
        s: Any,
        br: Any,
        c: Any,
        cr: Any,
        k: Any,
        segment: Any,
        group: Any,
        next_b: Any,
        next_s: Any,
    ) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            _emit(builder, arguments, rows, vectors)
            return context.get_dummy_value()

        return types.none(*(types.int64,) * _ARGUMENTS), emit

    return cast(Callable[..., None], intrinsic(tile))


def _emit(builder: Any, arguments: Any, rows: int, vectors: int) -> None:
    a, a_row, b, scales, b_row, c, c_row, inner, segment, group, next_b, next_scales = arguments
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    fma = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{LANES}f32")
    byte = ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [byte] + [_INTEGER] * 3)
    fetch = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    places = [(row, vector) for row in range(rows) for vector in range(vectors)]
    sums = {place: cgutils.alloca_once(builder, _FLOATS) for place in places}
    totals = {place: cgutils.alloca_once(builder, _FLOATS) for place in places}

    def pointer(base: Any, offset: Any, size: int, kind: Any) -> Any:
        place = builder.add(base, builder.mul(offset, _INDEX(size)))
        return builder.inttoptr(place, kind.as_pointer())

    def prefetch(base: Any, offset: Any, size: int) -> None:
        flags = [_INTEGER(0), _INTEGER(3), _INTEGER(1)]
        builder.call(fetch, [pointer(base, offset, size, ir.IntType(8)), *flags])

    def floats(value: float) -> Any:
        return ir.Constant(_FLOATS, [value] * LANES)

    def integers(value: int) -> Any:
        return ir.Constant(_INTEGERS, [value] * LANES)

    def splat(value: Any) -> Any:
        first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, _INDEX(0))
        return builder.shuffle_vector(first, first, integers(0))

    def loop(first: Any, end: Any, step: Any) -> Any:
        return cgutils.for_range_slice(builder, first, end, step, _INDEX)

    def column(row: Any, vector: int) -> Any:
        return builder.add(builder.mul(row, b_row), _INDEX(vector * LANES))

    for total in totals.values():
        builder.store(floats(-0.0), total)
    with loop(_INDEX(0), inner, segment) as (first, _):
        for one in sums.values():
            builder.store(floats(0.0), one)
        end = builder.add(first, segment)
        end = builder.select(builder.icmp_signed("<", end, inner), end, inner)
        with loop(first, end, group) as (start, _):
            up, down = [], []
            scale_row = builder.sdiv(start, group)
            for vector in range(vectors):
                place = column(scale_row, vector)
                half = builder.load(pointer(scales, place, 2, _HALVES), align=2)
                bits = builder.shl(builder.zext(half, _INTEGERS), integers(16))
                scale = builder.bitcast(bits, _FLOATS)
                up.append(builder.fmul(scale, floats(65537.0)))
                down.append(builder.fmul(scale, floats(-65536.0)))
                if vector % 2 == 0:
                    prefetch(next_scales, place, 2)
            stop = builder.add(start, group)
            with loop(start, stop, _INDEX(NIBBLES)) as (base, _):
                words = []
                for vector in range(vectors):
                    place = column(builder.sdiv(base, _INDEX(NIBBLES)), vector)
                    words.append(builder.load(pointer(b, place, 4, _INTEGERS), align=4))
                    prefetch(next_b, place, 4)
                for nibble in range(NIBBLES):
                    right = []
                    for vector, word in enumerate(words):
                        high = builder.shl(word, integers(28 - 4 * nibble))
                        q = builder.sitofp(builder.ashr(high, integers(28)), _FLOATS)
                        rounded = builder.fmul(q, up[vector])
                        right.append(builder.call(fma, [q, down[vector], rounded]))
                    k = builder.add(base, _INDEX(nibble))
                    for row in range(rows):
                        offset = builder.add(builder.mul(_INDEX(row), a_row), k)
                        left = splat(builder.load(pointer(a, offset, 4, _FLOAT)))
                        for vector in range(vectors):
                            one = sums[row, vector]
                            fused = builder.call(fma, [left, right[vector], builder.load(one)])
                            builder.store(fused, one)
        for place in places:
            total = builder.load(totals[place])
            builder.store(builder.fadd(total, builder.load(sums[place])), totals[place])
    for row, vector in places:
        offset = builder.add(builder.mul(_INDEX(row), c_row), _INDEX(vector * LANES))
        builder.store(builder.load(totals[row, vector]), pointer(c, offset, 4, _FLOATS), align=4)


_ROOM = many_registers()
_4x64 = _tile(4, 4)
_2x64 = _tile(2, 4)
_1x64 = _tile(1, 4)
_4x16 = _tile(4, 1)
_2x16 = _tile(2, 1)
_1x16 = _tile(1, 1)


@compiled
def int4_product(
    a: int,
    a_row: int,
    rows: int,
    b: int,
    scales: int,
    columns: int,
    c: int,
    c_row: int,
    inner: int,
    segment: int,
    group: int,
    next_b: int,
    next_scales: int,
) -> None:
    """C [rows, columns] = A [rows, inner] B [inner, columns], B in the layout of `PackedExperts`.

    `columns` is a multiple of LANES; `segment` a multiple of `group`, or at least `inner`.
    next_b, next_scales: the B of the product after this one, to be fetched meanwhile.
    """
    column = 0
    while column < columns:
        left = columns - column
        words, halves, out = b + 4 * column, scales + 2 * column, c + 4 * column
        soon, soon_too = next_b + 4 * column, next_scales + 2 * column
        row = 0
        while row < rows:
            x, y, more = a + 4 * row * a_row, out + 4 * row * c_row, rows - row
            if row > 0:
                soon, soon_too = words, halves
            if _ROOM and left >= 64:
                if more >= 4:
                    _4x64(
                        x, a_row, words, halves, columns, y, c_row, inner, segment, group,
                        soon, soon_too,
                    )  # fmt: skip
                    row += 4
                elif more >= 2:
                    _2x64(
                        x, a_row, words, halves, columns, y, c_row, inner, segment, group,
                        soon, soon_too,
                    )  # fmt: skip
                    row += 2
                else:
                    _1x64(
                        x, a_row, words, halves, columns, y, c_row, inner, segment, group,
                        soon, soon_too,
                    )  # fmt: skip
                    row += 1
            elif more >= 4:
                _4x16(
                    x, a_row, words, halves, columns, y, c_row, inner, segment, group,
                    soon, soon_too,
                )  # fmt: skip
                row += 4
            elif more >= 2:
                _2x16(
                    x, a_row, words, halves, columns, y, c_row, inner, segment, group,
                    soon, soon_too,
                )  # fmt: skip
                row += 2
            else:
                _1x16(
                    x, a_row, words, halves, columns, y, c_row, inner, segment, group,
                    soon, soon_too,
                )  # fmt: skip
                row += 1
        column += 64 if _ROOM and left >= 64 else 16
