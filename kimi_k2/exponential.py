"""Compiled elementwise functions with the bits of torch's: `exp2`, `sigmoid` and `silu`.

torch computes them on CPU in vectors with the published algorithms of Sleef, which are repeated
here. `exp` is the one inside sigmoid and SiLU; `torch.exp` itself is another (oneMKL's, not public)
and has other bits. No function branches, so loops over them become vector code.
"""

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
_ONE, _ZERO, _INFINITE = np.float32(1), np.float32(0), np.float32(np.inf)
_LEAST, _MOST = np.float32(-150), np.float32(128)

_E6, _E5, _E4 = (
    np.float32(0.000198527617612853646278381),
    np.float32(0.00139304355252534151077271),
    np.float32(0.00833336077630519866943359),
)
_E3, _E2, _E1 = (
    np.float32(0.0416664853692054748535156),
    np.float32(0.166666671633720397949219),
    np.float32(0.5),
)
_LOG2_E = np.float32(1.442695040888963407359924681)
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693145751953125), np.float32(1.428606765330187045e-06)
_LEAST_E, _MOST_E = np.float32(-104), np.float32(100)


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
    value = _INFINITE if x >= _MOST else value
    return _ZERO if x < _LEAST else value


@compiled
def exp(x: np.float32) -> np.float32:
    """e to the power `x`; 0 below -104, infinite above 100."""
    bounded = max(min(x, _MOST_E), _LEAST_E)
    whole = _nearest(bounded * _LOG2_E)
    part = _fma(whole, -_LN_2_HIGH, bounded)
    part = _fma(whole, -_LN_2_LOW, part)
    value = _fma(_E6, part, _E5)
    value = _fma(value, part, _E4)
    value = _fma(value, part, _E3)
    value = _fma(value, part, _E2)
    value = _fma(value, part, _E1)
    value = _ONE + _fma(part * part, value, part)
    exponent = np.int32(whole)
    half = exponent >> np.int32(1)
    value = value * _power(half) * _power(np.int32(exponent - half))
    value = _INFINITE if x > _MOST_E else value
    return _ZERO if x < _LEAST_E else value


@compiled
def sigmoid(x: np.float32) -> np.float32:
    return _ONE / (_ONE + exp(_ZERO - x))


@compiled
def silu(x: np.float32) -> np.float32:
    return x / (_ONE + exp(-x))
