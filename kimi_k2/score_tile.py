"""Scores of few rows against keys: what decoding spends its time on, bound by memory.

`kimi_k2.fma_tiles` has the like for any product. This one takes 16 keys at a time (8 where there
are few registers), since memory delivers 16 streams faster than 32, and asks for the memory of the
next page while it computes: one line of it for each line that it reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kimi_k2.jit import compiled
from kimi_k2.tile_code import many_registers

_ROOM = many_registers()
KEYS = 16 if _ROOM else 8
"""Keys of a tile."""
ROWS = 4
"""Rows of a tile."""
_LINE = 64
_ARGUMENTS = 9
_FLOAT, _INDEX, _INT, _BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(32), ir.IntType(8)
_QUAD = ir.VectorType(_FLOAT, 4)
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
    tile = _Quads(builder, a, a_row, b, b_row) if _ROOM else _Singles(builder, a, a_row, b, b_row)
    sums = [cgutils.alloca_once(builder, tile.kind) for _ in tile.groups]
    totals = [cgutils.alloca_once(builder, tile.kind) for _ in tile.groups]

    def loop(first: Any, end: Any, step: Any) -> Any:
        return cgutils.for_range_slice(builder, first, end, step, _INDEX)

    for total in totals:
        builder.store(ir.Constant(tile.kind, [-0.0] * tile.kind.count), total)
    with loop(_INDEX(0), inner, segment) as (first, _):
        for one in sums:
            builder.store(ir.Constant(tile.kind, [0.0] * tile.kind.count), one)
        end = builder.add(first, segment)
        end = builder.select(builder.icmp_signed("<", end, inner), end, inner)
        with loop(first, end, _INDEX(4)) as (k, _):
            if ahead:
                # 4 numbers of all keys were whole lines if they lay together, as next page's do.
                _ask(builder, builder.add(wanted, builder.mul(k, _INDEX(4 * KEYS))))
            tile.add_four(k, sums)
        for total, one in zip(totals, sums, strict=True):
            builder.store(builder.fadd(builder.load(total), builder.load(one)), total)
    for group, total in zip(tile.groups, totals, strict=True):
        whole = builder.load(total)
        for key in range(tile.keys):
            four = _shuffle(builder, whole, whole, list(range(4 * key, 4 * key + 4)))
            place = builder.mul(_INDEX(tile.keys * group + key), c_row)
            builder.store(four, _pointer(builder, c, place), align=4)


class _Quads:
    """4 keys with 4 rows each in a vector: few instructions where vectors are long."""

    keys = 4
    kind = ir.VectorType(_FLOAT, 16)
    groups = range(KEYS // 4)

    def __init__(self, builder: Any, a: Any, a_row: Any, b: Any, b_row: Any) -> None:
        self._builder, self._a, self._a_row, self._b, self._b_row = builder, a, a_row, b, b_row
        self._fma = _fma(builder, self.kind)

    def add_four(self, k: Any, sums: list[Any]) -> None:
        """What the inner elements from `k` on add to the sums."""
        builder, right = self._builder, []
        for step in range(4):
            four = _four(builder, self._b, self._b_row, builder.add(k, _INDEX(step)))
            right.append(_shuffle(builder, four, four, [0, 1, 2, 3] * 4))
        for group, place in zip(self.groups, sums, strict=True):
            left = []
            for key in range(4 * group, 4 * group + 4):
                offset = builder.add(builder.mul(_INDEX(key), self._a_row), k)
                left.append(builder.load(_pointer(builder, self._a, offset), align=4))
            low = _shuffle(builder, left[0], left[1], list(range(8)))
            high = _shuffle(builder, left[2], left[3], list(range(8)))
            block = _shuffle(builder, low, high, list(range(16)))
            one = builder.load(place)
            for step in range(4):
                spread = [4 * (n // 4) + step for n in range(16)]
                one = builder.call(
                    self._fma, [_shuffle(builder, block, block, spread), right[step], one]
                )
            builder.store(one, place)


class _Singles:
    """One key with its 4 rows in a vector: nothing has to be moved between lanes, and 8 sums fit
    into 16 registers."""

    keys = 1
    kind = _QUAD
    groups = range(KEYS)

    def __init__(self, builder: Any, a: Any, a_row: Any, b: Any, b_row: Any) -> None:
        self._builder, self._a, self._a_row, self._b, self._b_row = builder, a, a_row, b, b_row
        self._fma = _fma(builder, self.kind)

    def add_four(self, k: Any, sums: list[Any]) -> None:
        """What the inner elements from `k` on add to the sums."""
        builder = self._builder
        for step in range(4):
            inner = builder.add(k, _INDEX(step))
            right = _four(builder, self._b, self._b_row, inner)
            for key, place in zip(self.groups, sums, strict=True):
                offset = builder.add(builder.mul(_INDEX(key), self._a_row), inner)
                address = _pointer(builder, self._a, offset, _FLOAT)
                first = builder.insert_element(
                    ir.Constant(_QUAD, ir.Undefined), builder.load(address), _INDEX(0)
                )
                left = _shuffle(builder, first, first, [0] * 4)
                builder.store(builder.call(self._fma, [left, right, builder.load(place)]), place)


def _fma(builder: Any, kind: Any) -> Any:
    signature = ir.FunctionType(kind, [kind] * 3)
    return cgutils.get_or_insert_function(builder.module, signature, f"llvm.fma.v{kind.count}f32")


def _pointer(builder: Any, base: Any, offset: Any, kind: Any = _QUAD) -> Any:
    place = builder.add(base, builder.mul(offset, _INDEX(4)))
    return builder.inttoptr(place, kind.as_pointer())


def _four(builder: Any, base: Any, row: Any, k: Any) -> Any:
    return builder.load(_pointer(builder, base, builder.mul(k, row)), align=4)


def _shuffle(builder: Any, one: Any, other: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_INT, len(lanes)), lanes)
    return builder.shuffle_vector(one, other, mask)


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
