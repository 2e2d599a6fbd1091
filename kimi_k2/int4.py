"""compressed-tensors `pack-quantized` INT4: eight weights in an int32, lowest nibble first.

A stored nibble is the weight plus 8. The effective weight is `bfloat16(q * scale)`: the
product is rounded to bfloat16 even where activations are float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

_OFFSET = 8


def unpack(packed: Tensor) -> Tensor:
    """[..., columns // 8] int32 to [..., columns] int8 in -8 to 7."""
    nibbles = packed.contiguous().view(torch.uint8)
    both = torch.stack((nibbles & 0xF, nibbles >> 4), dim=-1)
    return torch.sub(both.view(torch.int8).flatten(-2), _OFFSET)


def dequantize(packed: Tensor, scale: Tensor) -> Tensor:
    """The effective weights.

    Args:
        packed: [..., columns // 8] int32.
        scale: [..., columns // group] bfloat16; the leading dimensions are those of `packed`.

    Returns: [..., columns] bfloat16.
    """
    groups = unpack(packed).view(*scale.shape, -1)
    return torch.mul(groups.to(torch.bfloat16), scale.unsqueeze(-1)).flatten(-2)


def quantize(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Rounds weights to the nearest representable ones.

    Args:
        weight: [..., columns], floating point; columns a multiple of `group_size`.

    Returns: packed [..., columns // 8] int32 and scale [..., columns // group_size] bfloat16.
    """
    groups = weight.float().reshape(*weight.shape[:-1], -1, group_size)
    scale = (groups.abs().amax(-1) / 7.5).clamp_min(torch.finfo(torch.bfloat16).tiny)
    scale = scale.to(torch.bfloat16)
    q = torch.clamp(torch.round(groups / scale.float().unsqueeze(-1)), -8, 7).flatten(-2)
    return pack(q.to(torch.int8)), scale


def pack(q: Tensor) -> Tensor:
    """[..., columns] int8 in -8 to 7 to [..., columns // 8] int32: the inverse of `unpack`."""
    nibbles = (q + _OFFSET).view(torch.uint8).view(*q.shape[:-1], -1, 2)
    both = nibbles[..., 0] | (nibbles[..., 1] << 4)
    return both.contiguous().view(torch.int32)
