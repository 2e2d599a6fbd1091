"""How numba is used: machine code is kept for later processes, or made anew where it cannot be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_F = TypeVar("_F", bound=Callable[..., Any])
_MARKS = (b"kimi_k2.jit", b"numba", b"llvmlite")


def _source_stamp() -> str:
    """A hash of every file here that compiled code may come from."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source = path.read_bytes()
        if any(mark in source for mark in _MARKS):
            digest.update(path.name.encode() + b"\0" + source)
    return digest.hexdigest()


_STAMP = _source_stamp()


def compiled(function: _F) -> _F:
    """Compiles on the first call and keeps the machine code for later processes.

    Kept code is used as long as no file with compiled functions has changed: a function contains
    those that it calls. Where no directory for it can be written (a read-only install without a
    home), each process compiles for itself. Runs without the interpreter lock. Division by zero
    gives infinity or NaN, as in torch: a check would keep loops from becoming vector code.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        dispatcher = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return cast(_F, numba.njit(**options)(function))
    kept = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if kept is not None and hasattr(kept, "_source_stamp"):
        # numba asks only for the date of the function's own file.
        kept._source_stamp = _STAMP
    return cast(_F, dispatcher)
