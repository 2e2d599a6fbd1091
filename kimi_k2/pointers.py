"""Memory as compiled functions see it, from an address that is a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from numba.core import types
from numba.extending import intrinsic


def pointer_to(kind: Any) -> Callable[[int], Any]:
    """A function of an int64 address, for compiled functions: the pointer to elements of a numba
    type, as `carray` wants it."""
    pointer = cast(Any, types).CPointer(kind)

    def at(_typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

        return pointer(types.int64), emit

    return cast(Callable[[int], Any], intrinsic(at))
