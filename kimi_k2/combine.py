"""The combine rule: how a row's expert outputs become one row.

Float32, in ascending logical expert id, each product rounded and then each sum rounded,
never fused, and one rounding to the activation dtype at the end. Worker and router both call
this function, which is what makes their results the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def combine(rows: Tensor, weights: Tensor) -> Tensor:
    """Sums each row's expert outputs.

    Separate elementwise kernels, so each product is in memory before it is added: no compiler
    can fuse the two.

    Args:
        rows: [T, k, hidden], activation dtype, experts ascending in each row.
        weights: [T, k] float32, in the same order.

    Returns: [T, hidden] in the dtype of `rows`.
    """
    total = torch.zeros(rows.shape[0], rows.shape[2], dtype=torch.float32, device=rows.device)
    for place in range(rows.shape[1]):
        total += rows[:, place].float() * weights[:, place, None]
    return total.to(rows.dtype)
