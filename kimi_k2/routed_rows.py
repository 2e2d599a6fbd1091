"""Rows through the experts that they were routed to, by one compiled call a layer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.held_experts import HeldExperts


def compiled_rows(
    x: Tensor,
    counts: NDArray[np.int64],
    slots: NDArray[np.int64],
    combine: NDArray[np.bool_],
    factors: NDArray[np.float32],
    weights: HeldExperts,
    numerics: Numerics,
    out: Tensor | None = None,
) -> Tensor | None:
    """The experts' network and, for marked rows, the combine rule.

    The bits of `expert_ffn` and `combine`; allocates no more than the result and what fits the
    cache. The arrays must be writable, or the kernel is compiled anew.

    Args:
        x: [R, hidden] on CPU.
        counts: [R], the number of a row's experts.
        slots, factors: [P], the experts of all rows, row after row.
        combine: [R], the rows that become the sum of factor * output over their experts; any other
            row becomes the outputs of its experts, one after another.
        out: [N, hidden], contiguous float32 on CPU, to be filled and returned.

    Returns: [N, hidden], N the number of marked rows and of the other rows' experts; None if
        no kernel was proven for these weights.
    """
    hidden = x.shape[1]
    width = weights.width
    up = numerics.segments.get((hidden, 2 * width))
    down = numerics.segments.get((width, hidden))
    table = weights.table(up, down)
    if table is None or up is None or down is None or x.dtype != torch.float32:
        return None
    from kimi_k2.ffn_kernels import route

    if out is None:
        places = len(slots) - int(counts[combine].sum()) + int(np.count_nonzero(combine))
        out = x.new_empty(places, hidden)
    x = x.contiguous()
    done = route(
        x.data_ptr(),
        hidden,
        counts,
        slots,
        combine,
        factors,
        table,
        up,
        down,
        out.data_ptr(),
    )
    return out if done else None
