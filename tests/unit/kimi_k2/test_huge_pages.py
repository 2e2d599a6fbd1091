from __future__ import annotations

import gc
import mmap

import pytest
import torch

from kimi_k2 import huge_pages


@pytest.mark.parametrize("rows", [0, 3, 1 << 13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_tensors_of_any_size_are_zero_and_writable(rows: int, dtype: torch.dtype) -> None:
    made = huge_pages.zeros((rows, 384), dtype)
    assert made.shape == (rows, 384) and made.dtype == dtype and made.is_contiguous()
    assert not made.any()
    made += 2
    assert bool((made == 2).all())


def test_a_view_keeps_the_memory() -> None:
    row = huge_pages.zeros((1 << 13, 384), torch.float32).fill_(3.0)[5]
    gc.collect()
    assert bool((row == 3).all())


def test_a_system_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert not huge_pages.zeros((1 << 13, 384), torch.float32).any()
