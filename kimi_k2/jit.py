"""How numba is used: machine code is kept for later processes, or made anew where it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compiles on the first call and keeps the machine code for later processes.

    Where no directory for it can be written (a read-only install without a home), each process
    compiles for itself. Runs without the interpreter lock.
    """
    try:
        return cast(_F, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast(_F, numba.njit(nogil=True)(function))
