from __future__ import annotations

import torch

from kimi_k2.int4 import dequantize, pack, quantize, unpack


def words(*shape: int) -> torch.Tensor:
    limits = torch.iinfo(torch.int32)
    return torch.randint(
        limits.min,
        limits.max,
        shape,
        generator=torch.Generator().manual_seed(0),
        dtype=torch.int32,
    )


def test_lowest_nibble_first_offset_eight() -> None:
    packed = torch.tensor([[0x76543210]], dtype=torch.int32)
    assert unpack(packed).tolist() == [[-8, -7, -6, -5, -4, -3, -2, -1]]


def test_pack_is_the_inverse_of_unpack() -> None:
    packed = words(3, 5, 8)
    assert torch.equal(pack(unpack(packed)), packed)


def test_the_product_is_rounded_to_bfloat16() -> None:
    packed = words(16, 32)
    scale = (torch.rand(16, 8, generator=torch.Generator().manual_seed(1)) + 0.5).bfloat16()
    exact = unpack(packed).view(16, 8, 32).double() * scale.double()[..., None]
    weight = dequantize(packed, scale)
    assert weight.dtype is torch.bfloat16
    assert torch.equal(weight, exact.view(16, 256).to(torch.bfloat16))
    assert not torch.equal(weight.double(), exact.view(16, 256))


def test_quantize_stays_within_half_a_step() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(2))
    packed, scale = quantize(weight, 32)
    error = (dequantize(packed, scale).float() - weight).abs().view(4, 2, 32)
    assert bool((error <= 0.56 * scale.float()[..., None]).all())
    assert bool(dequantize(*quantize(torch.zeros(1, 32), 32)).eq(0).all())
