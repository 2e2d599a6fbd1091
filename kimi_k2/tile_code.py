"""Machine code of one tile of a matrix product, for `kimi_k2.fma_tiles`.

Written out as vector instructions, since a compiler that sees loops is free to choose another
order of additions, and has no reason to keep sums in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_FLOAT = ir.FloatType()
_INDEX = ir.IntType(64)
_ARGUMENTS = 9


def many_registers() -> bool:
    """Whether this machine has 32 vector registers of 16 floats, else 16 of 8."""
    return bool(binding.get_host_cpu_features().get("avx512f", False))


def tile_function(rows: int, vectors: int, lanes: int, quads: bool = False) -> Callable[..., None]:
    """A function of one tile of `rows` x (`vectors` * `lanes`): C = A B.

    With `quads` the tile has 4 columns, a vector holds 4 rows of them, the inner size and the
    segment are multiples of 4, and columns of A are adjacent: attention of few heads.

    Its arguments, int64 but for the last: the address of A, the strides of A's rows and columns,
    the address of B, the stride of B's rows, the address of C, the stride of C's rows, the inner
    size, the segment, and a value whose type says what B is made of: float32, or uint16 for the
    bits of bfloat16. Strides count elements; columns of B and C are adjacent.
    """

    def tile(
        _typing: Any,
        a: Any,
        ar: Any,
        ac: Any,
        b: Any,
        br: Any,
        c: Any,
        cr: Any,
        k: Any,
        s: Any,
        kind: Any,
    ) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            arguments = arguments[:_ARGUMENTS]
            if quads:
                _emit_quads(builder, arguments, rows, kind)
            else:
                _emit(builder, arguments, rows, vectors, lanes, kind)
            return context.get_dummy_value()

        return types.none(*(types.int64,) * _ARGUMENTS, kind), emit

    return cast(Callable[..., None], intrinsic(tile))


def size_function() -> Callable[[Any], int]:
    """Bytes of an element of B."""

    def size(_typing: Any, kind: Any) -> Any:
        def emit(_context: Any, _builder: Any, _signature: Any, _values: Any) -> Any:
            return _INDEX(kind.bitwidth // 8)

        return types.int64(kind), emit

    return cast(Callable[[Any], int], intrinsic(size))


def _load(builder: Any, base: Any, offset: Any, lanes: int, kind: Any) -> Any:
    """Adjacent elements of B as floats: one, or a vector of them."""

    def vector(element: Any) -> Any:
        return element if lanes == 1 else ir.VectorType(element, lanes)

    place = builder.add(base, builder.mul(offset, _INDEX(kind.bitwidth // 8)))
    if kind is types.float32:
        return builder.load(builder.inttoptr(place, vector(_FLOAT).as_pointer()), align=4)
    stored = builder.inttoptr(place, vector(ir.IntType(16)).as_pointer())
    integer = vector(ir.IntType(32))
    bits = builder.zext(builder.load(stored, align=2), integer)
    high = ir.Constant(integer, 16 if lanes == 1 else [16] * lanes)
    return builder.bitcast(builder.shl(bits, high), vector(_FLOAT))


def _emit(
    builder: Any, arguments: Any, rows: int, vectors: int, lanes: int, kind_of_b: Any
) -> None:
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
                right.append(_load(builder, b, offset, lanes, kind_of_b))
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


def _emit_quads(builder: Any, arguments: Any, rows: int, kind_of_b: Any) -> None:
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
                four = _load(builder, b, offset, 4, kind_of_b)
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
