"""Memory in huge pages, for tensors that are read all over: fewer misses of address translation."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

_WORTH_IT = 4 << 20
"""Bytes; two pages of the usual huge size."""


def zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros in main memory, in huge pages where the system has them and it is large.

    The memory is the process's once it is written to, and goes back with the last view of it.
    """
    size = prod(shape) * dtype.itemsize
    if size < _WORTH_IT or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(tuple(shape), dtype=dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages; the memory is as good
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(tuple(shape))
