"""Scores of few rows against keys: what decoding spends its time on, bound by memory.

`kimi_k2.fma_tiles` has the like for any product. This one takes 16 keys at a time, since memory
delivers 16 streams faster than 32, and asks for the memory of the next page while it computes:
one line of it for each line that it reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kimi_k2.jit import compiled

KEYS = 16
"""Keys of a tile."""
ROWS = 4
"""Rows of a tile."""
_LINE = 64
_ARGUMENTS = 9
_FLOAT, _INDEX, _INT, _BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(8)
_READ, _KEEP, _DATA = _INT(0), _INT(3), _INT(1)
"""Of the prefetch instruction: to read, into the nearest cache, data."""


def _tile(ahead: bool) -> Callable[..., None]:
    """A function of one tile: scores [KEYS, ROWS] = keys [KEYS, inner] turned [inner, ROWS].

    Its arguments, all int64: the address of the keys, their stride, the address of `turned`, its
    stride, the address of the scores, their stride, the inner size, the segment (both multiples
    of 4), and the address of as many bytes as the keys have, which are wanted next (`ahead`).
    Strides count elements.
    """

    def tile(
        _typing: Any, a: Any, ar: Any, b: Any, br: Any, c: Any, cr: Any, k: Any, s: Any, n: Any
    ) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            _emit(builder, arguments, ahead)
            return context.get_dummy_value()

        return types.none(*(types.int64,) * _ARGUMENTS), emit

    return cast(Callable[..., None], intrinsic(tile))


def _emit(builder: Any, arguments: Any, ahead: bool) -> None:
    a, a_row, b, b_row, c, c_row, inner, segment, wanted = arguments
    quad, kind = ir.VectorType(_FLOAT, 4), ir.VectorType(_FLOAT, 16)
    fma = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * 3), "llvm.fma.v16f32"
    )
    groups = range(KEYS // 4)
    sums = [cgutils.alloca_once(builder, kind) for _ in groups]
    totals = [cgutils.alloca_once(builder, kind) for _ in groups]

    def load(base: Any, offset: Any) -> Any:
        return builder.load(pointer(base, offset), align=4)

    def pointer(base: Any, offset: Any) -> Any:
        place = builder.add(base, builder.mul(offset, _INDEX(4)))
        return builder.inttoptr(place, quad.as_pointer())

    def shuffle(one: Any, other: Any, lanes: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(_INT, len(lanes)), lanes)
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
            if ahead:
                # 4 numbers of 16 keys were 4 lines if they lay together, as next page's lines do.
                _ask(builder, builder.add(wanted, builder.mul(k, _INDEX(4 * KEYS))))
            right = []
            for step in range(4):
                four = load(b, builder.mul(builder.add(k, _INDEX(step)), b_row))
                right.append(shuffle(four, four, [0, 1, 2, 3] * 4))
            for group in groups:
                left = []
                for key in range(4 * group, 4 * group + 4):
                    left.append(load(a, builder.add(builder.mul(_INDEX(key), a_row), k)))
                low = shuffle(left[0], left[1], list(range(8)))
                high = shuffle(left[2], left[3], list(range(8)))
                block = shuffle(low, high, list(range(16)))
                one = builder.load(sums[group])
                for step in range(4):
                    spread = shuffle(block, block, [4 * (n // 4) + step for n in range(16)])
                    one = builder.call(fma, [spread, right[step], one])
                builder.store(one, sums[group])
        for total, one in zip(totals, sums, strict=True):
            builder.store(builder.fadd(builder.load(total), builder.load(one)), total)
    for group in groups:
        total = builder.load(totals[group])
        for key in range(4):
            four = shuffle(total, total, list(range(4 * key, 4 * key + 4)))
            place = builder.mul(_INDEX(4 * group + key), c_row)
            builder.store(four, pointer(c, place), align=4)


def _ask(builder: Any, address: Any) -> None:
    """For the lines that 4 numbers of each key would fill."""
    line = _BYTE.as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [line, _INT, _INT, _INT])
    ask = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    for number in range(4 * 4 * KEYS // _LINE):
        place = builder.add(address, _INDEX(number * _LINE))
        builder.call(ask, [builder.inttoptr(place, line), _READ, _KEEP, _DATA])


_plain = _tile(ahead=False)
_ahead = _tile(ahead=True)


@compiled
def score(
    keys: int,
    count: int,
    inner: int,
    turned: int,
    turned_row: int,
    scores: int,
    scores_row: int,
    segment: int,
    wanted: int,
    wanted_count: int,
) -> None:
    """scores [count, ROWS] of a page's keys, `count` rounded up to whole tiles.

    Args:
        keys, turned, scores: addresses of [>= count, inner], [inner, ROWS], [>= count, ROWS].
        wanted: the address of the page that is wanted next, of which `wanted_count` keys.
    """
    for first in range(0, count, KEYS):
        a, c = keys + 4 * first * inner, scores + 4 * first * scores_row
        b, b_row, c_row = turned, turned_row, scores_row
        if first < wanted_count:
            _ahead(a, inner, b, b_row, c, c_row, inner, segment, wanted + 4 * first * inner)
        else:
            _plain(a, inner, b, b_row, c, c_row, inner, segment, wanted)
