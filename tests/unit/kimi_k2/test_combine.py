from __future__ import annotations

import numpy as np
import pytest
import torch

from kimi_k2.combine import combine


def values(rows: int, k: int, hidden: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, k, hidden, generator=generator), torch.rand(
        rows, k, generator=generator
    )


def by_the_rule(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """One number at a time: float32 product, then float32 sum, in order."""
    out = np.zeros((rows.shape[0], rows.shape[2]), dtype=np.float32)
    terms = rows.float().numpy()
    for t, h in np.ndindex(out.shape):
        total = np.float32(0)
        for k in range(rows.shape[1]):
            total = np.float32(total + np.float32(terms[t, k, h] * np.float32(weights[t, k])))
        out[t, h] = total
    return torch.from_numpy(out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_rule_in_slow_motion(dtype: torch.dtype) -> None:
    rows, weights = values(5, 8, 48)
    rows = rows.to(dtype)
    assert torch.equal(combine(rows, weights), by_the_rule(rows, weights).to(dtype))


def test_is_not_fused() -> None:
    """With these numbers a fused multiply-add keeps a bit that separate rounding loses."""
    epsilon = 2.0**-23
    rows = torch.tensor([[[-1.0], [1 + epsilon]]])
    weights = torch.tensor([[1.0, 1 - epsilon]])
    fused = (1 + epsilon) * (1 - epsilon) - 1
    assert fused == -(2.0**-46)
    assert combine(rows, weights).item() == 0.0


def test_order_matters_and_is_kept() -> None:
    rows = torch.tensor([[[1e8], [1.0], [-1e8]]])
    weights = torch.ones(1, 3)
    assert combine(rows, weights).item() == 0.0
    assert combine(rows[:, [0, 2, 1]], weights).item() == 1.0


def test_no_rows() -> None:
    assert combine(torch.empty(0, 8, 4), torch.empty(0, 8)).shape == (0, 4)
