"""Products with a bfloat16 B: the bits of those with the same B in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kimi_k2.fma_tiles import head_products, narrow_product


def products(
    function: Callable[..., None], x: Tensor, weight: Tensor, columns: int, segment: int
) -> Tensor:
    """x [rows, heads, inner], weight [heads, inner, columns]."""
    rows, heads, inner = x.shape
    out = torch.full((rows, heads, columns), float("nan"))
    places = (x.data_ptr(), x.stride(0), x.stride(1), rows, weight.data_ptr(), columns, heads)
    function(*places, out.data_ptr(), inner, segment)
    return out


def narrow_head_products(
    x: int,
    x_row: int,
    x_head: int,
    rows: int,
    weight: int,
    columns: int,
    heads: int,
    out: int,
    inner: int,
    segment: int,
) -> None:
    """`head_products` with a bfloat16 weight."""
    for head in range(heads):
        a, b = x + 4 * head * x_head, weight + 2 * head * inner * columns
        c, c_row = out + 4 * head * columns, heads * columns
        narrow_product(a, x_row, 1, rows, b, columns, columns, c, c_row, inner, segment)


@pytest.mark.parametrize("columns", [1, 3, 4, 17, 64, 127])
@pytest.mark.parametrize("inner", [1, 32, 77, 256])
def test_narrow_weights(inner: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(inner)
    for rows in (1, 2, 3, 5, 8, 16, 37):
        x = torch.randn(rows, 2, inner, generator=generator)
        weight = torch.randn(2, inner, columns, generator=generator).bfloat16()
        for segment in (inner, 4, 5, 128):
            wide = products(head_products, x, weight.float(), columns, segment)
            assert torch.equal(wide, products(narrow_head_products, x, weight, columns, segment))


def test_every_bfloat16_is_widened_exactly() -> None:
    weight = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)[None, None]
    found = products(narrow_head_products, torch.ones(1, 1, 1), weight, 1 << 16, 1)
    wanted = weight.float()
    assert torch.equal(found.isnan(), wanted.isnan())
    finite = ~wanted.isnan()
    assert torch.equal(found[finite], wanted[finite])
