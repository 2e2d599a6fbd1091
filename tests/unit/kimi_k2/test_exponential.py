"""The compiled elementwise functions against torch, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kimi_k2 import exponential_proof
from kimi_k2.exponential_proof import elementwise_differs, sigmoids, silus

PAIRS = ((sigmoids, torch.sigmoid), (silus, F.silu))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal in every bit, except that any NaN equals any other."""
    equal = a.view(torch.int32) == b.view(torch.int32)
    return bool((equal | (a.isnan() & b.isnan())).all())


@pytest.mark.parametrize("first", [-(1 << 31), -(1 << 31) + 311])
@pytest.mark.parametrize("compiled, library", PAIRS)
def test_all_kinds_of_floats(
    compiled: Callable[..., None], library: Callable[[Tensor], Tensor], first: int
) -> None:
    """Of every exponent and both signs: normal, denormal, infinite and NaN."""
    x = torch.arange(first, 1 << 31, 6151).to(torch.int32).view(torch.float32)
    x = x[: len(x) // 64 * 64]
    found = torch.empty_like(x)
    compiled(x.numpy(), found.numpy())
    assert same_bits(found, library(x))


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("compiled, library", PAIRS)
def test_where_results_change(
    compiled: Callable[..., None], library: Callable[[Tensor], Tensor], spread: float
) -> None:
    x = torch.randn(1 << 18, generator=torch.Generator().manual_seed(1)) * spread
    found = torch.empty_like(x)
    compiled(x.numpy(), found.numpy())
    assert torch.equal(found, library(x))


def test_the_proof_agrees_and_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not elementwise_differs()
    monkeypatch.setattr(exponential_proof, "silus", sigmoids)
    assert elementwise_differs()
