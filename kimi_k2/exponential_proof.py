"""Whether the compiled elementwise functions give torch's bits on this machine."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kimi_k2.exponential import sigmoid, silu
from kimi_k2.fma_tiles import Floats
from kimi_k2.jit import compiled

_STEP = 65_535 * 3
"""Between the bit patterns that are compared: about 22,000, through every exponent."""
_SPAN = 110.0
_SPREAD = 12_288


def elementwise_differs() -> bool:
    """Compares `exponential.sigmoid` and `silu` with `torch.sigmoid` and `F.silu`.

    Over floats of every exponent, and more densely where results are neither 0 nor 1. Only torch's
    vector code is asked, as everywhere (`Numerics`).
    """
    patterns = torch.arange(-(1 << 31), 1 << 31, _STEP).to(torch.int32).view(torch.float32)
    special = torch.tensor([0.0, -0.0, float("inf")])
    x = torch.cat((patterns, special, torch.linspace(-_SPAN, _SPAN, _SPREAD)))
    x = x[~x.isnan()]
    x = torch.cat((x, x.new_zeros(-len(x) % 64)))
    return _differs(x, sigmoids, torch.sigmoid) or _differs(x, silus, F.silu)


@compiled
def sigmoids(x: Floats, out: Floats) -> None:
    for place in range(x.shape[0]):
        out[place] = sigmoid(x[place])


@compiled
def silus(x: Floats, out: Floats) -> None:
    for place in range(x.shape[0]):
        out[place] = silu(x[place])


def _differs(
    x: Tensor, function: Callable[[Floats, Floats], None], library: Callable[[Tensor], Tensor]
) -> bool:
    found = torch.empty_like(x)
    function(x.numpy(), found.numpy())
    return not torch.equal(found.view(torch.int32), library(x).view(torch.int32))
