"""INT4 weights equal what the compressed-tensors library itself unpacks."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from kimi_k2.int4 import dequantize, pack, quantize, unpack

SCHEME = QuantizationScheme(
    targets=["Linear"],
    weights=QuantizationArgs(
        num_bits=4, type="int", symmetric=True, strategy="group", group_size=32
    ),
)


@pytest.mark.parametrize(("rows", "columns"), [(32, 256), (256, 32), (5, 96)])
def test_unpacked_and_dequantized_alike(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    limits = torch.iinfo(torch.int32)
    packed = torch.randint(
        limits.min, limits.max, (rows, columns // 8), generator=generator, dtype=torch.int32
    )
    scale = torch.rand(rows, columns // 32, generator=generator).to(torch.bfloat16)
    shape = torch.Size((rows, columns))
    assert torch.equal(unpack(packed), unpack_from_int32(packed, 4, shape))
    theirs = PackedQuantizationCompressor.decompress(
        {"weight_packed": packed, "weight_scale": scale, "weight_shape": torch.tensor(shape)},
        SCHEME,
    )
    assert torch.equal(dequantize(packed, scale), theirs["weight"])


def test_packed_alike() -> None:
    q = torch.randint(-8, 8, (7, 64), generator=torch.Generator().manual_seed(4)).to(torch.int8)
    assert torch.equal(pack(q), pack_to_int32(q, 4))


def test_quantized_alike() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16)
    packed, scale = quantize(weight, 32)
    theirs = PackedQuantizationCompressor.compress(
        {"weight": weight, "weight_scale": scale}, SCHEME
    )
    difference = unpack(packed).int() - unpack(theirs["weight_packed"]).int()
    assert difference.abs().max() <= 1
