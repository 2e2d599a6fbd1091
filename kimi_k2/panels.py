"""Weights as products compiled by numba read them from start to end: panel after panel of columns.

A product works on 64 columns at a time. In a panel the 64 numbers of one input lie next to those
of the next, so memory is read in one stream. Where every number is a bfloat16, as checkpoints
store them, it is kept as one, and half of the bytes are read. Neither changes a bit of a result.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

PANEL = 64
"""Columns of a panel; the last one of a matrix may have fewer."""


def pack(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers of weight [in, out] or [heads, in, out], head after head and panel after panel.

    Args:
        dtype: float32, or bfloat16 where that is exact (`all_narrow`).

    Returns: flat, contiguous.
    """
    heads = weight if weight.dim() == 3 else weight[None]
    panels = [panel for head in heads for panel in torch.split(head, PANEL, dim=1)]
    return torch.cat([panel.to(dtype).flatten() for panel in panels])


def all_narrow(weights: Iterable[Tensor]) -> bool:
    """Whether every number of every weight is a bfloat16."""
    return all(torch.equal(weight, weight.to(torch.bfloat16).float()) for weight in weights)
