"""The compiled power of two, with the bits of `torch.exp2` (the same published algorithm)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kimi_k2.jit import compiled

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)

_C6, _C5, _C4 = (
    np.float32(0.1535920892e-3),
    np.float32(0.1339262701e-2),
    np.float32(0.9618384764e-2),
)
_C3, _C2, _C1 = np.float32(0.5550347269e-1), np.float32(0.2402264476), np.float32(0.6931471825)
_ONE, _ZERO = np.float32(1), np.float32(0)
_LEAST, _MOST = np.float32(-150), np.float32(128)


def _library(name: str, arguments: int) -> Callable[..., np.float32]:
    """A function of floats that processors have an instruction for."""

    def emit(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        signature = ir.FunctionType(_FLOAT, [_FLOAT] * arguments)
        return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), values)

    def one(_typing: Any, a: Any) -> Any:
        return types.float32(types.float32), emit

    def three(_typing: Any, a: Any, b: Any, c: Any) -> Any:
        return types.float32(types.float32, types.float32, types.float32), emit

    return cast(Callable[..., np.float32], intrinsic(one if arguments == 1 else three))


def _shift_exponent() -> Callable[[np.int32], np.float32]:
    """Two to an integer power from -126 to 127."""

    def power(_typing: Any, exponent: Any) -> Any:
        def emit(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            return builder.bitcast(builder.shl(builder.add(values[0], _INT(127)), _INT(23)), _FLOAT)

        return types.float32(types.int32), emit

    return cast(Callable[[np.int32], np.float32], intrinsic(power))


_fma = _library("llvm.fma.f32", 3)
_nearest = _library("llvm.rint.f32", 1)
_power = _shift_exponent()


@compiled
def exp2(x: np.float32) -> np.float32:
    """Two to the power `x`; 0 below -150, infinite from 128."""
    whole = _nearest(max(min(x, _MOST), _LEAST))
    part = x - whole
    value = _fma(_C6, part, _C5)
    value = _fma(value, part, _C4)
    value = _fma(value, part, _C3)
    value = _fma(value, part, _C2)
    value = _fma(value, part, _C1)
    value = _fma(value, part, _ONE)
    exponent = np.int32(whole)
    half = exponent >> np.int32(1)
    value = value * _power(half) * _power(np.int32(exponent - half))
    if x < _LEAST:
        return _ZERO
    if x >= _MOST:
        return np.float32(np.inf)
    return value
