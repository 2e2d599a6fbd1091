"""INT4 of compressed-tensors `pack-quantized`: symmetric, groups of 32 along the input, bfloat16 scales.

Training and export share `int4`, so the exported weights are exactly those that the last steps trained with.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 32


def int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight float32 [..., out, in] -> q int8 in [-8, 7] [..., out, in], scale bfloat16 [..., out, in / 32]."""
    groups = weight.float().unflatten(-1, (-1, GROUP))
    scale = (groups.abs().amax(-1) / 7.5).clamp_min(1e-6).to(torch.bfloat16)
    q = (groups / scale.float().unsqueeze(-1)).round().clamp(-8, 7)
    return q.flatten(-2).to(torch.int8), scale


def dequantize(q: Tensor, scale: Tensor) -> Tensor:
    """bf16(q * scale): the effective weight, [..., out, in] bfloat16."""
    wide = q.float().unflatten(-1, (-1, GROUP)) * scale.float().unsqueeze(-1)
    return wide.flatten(-2).to(torch.bfloat16)


def masters(q: Tensor, scale: Tensor) -> Tensor:
    """float32 masters of which `int4` makes exactly these integers and scales again, to train on from a checkpoint.

    q * scale will not do: a group's largest integer stands for 7.5 steps before rounding, so the scale would shrink."""
    groups = q.float().unflatten(-1, (-1, GROUP))
    largest = groups.abs().amax(-1, keepdim=True)
    edge = torch.where(groups <= -8, -7.5, 7.4999 * groups.sign())
    return (torch.where(groups.abs() == largest, edge, groups) * scale.float().unsqueeze(-1)).flatten(-2)


def fake_quantize(weight: Tensor) -> Tensor:
    """The effective weight as float32, with the gradient passed straight through to the master."""
    groups = weight.unflatten(-1, (-1, GROUP))
    with torch.no_grad():
        scale = (groups.abs().amax(-1) / 7.5).clamp_min(1e-6).to(torch.bfloat16).float().unsqueeze(-1)
        q = (groups / scale).round().clamp(-8, 7)
        shift = (q * scale).to(torch.bfloat16).float() - groups
    return (groups + shift).flatten(-2)


def pack(q: Tensor) -> Tensor:
    """int8 [..., in] in [-8, 7] -> int32 [..., in / 8], offset 8, low nibble first."""
    nibbles = (q.to(torch.int64) + 8).unflatten(-1, (-1, 8))
    shifts = torch.arange(0, 32, 4, dtype=torch.int64, device=q.device)
    words = (nibbles << shifts).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def unpack(words: Tensor) -> Tensor:
    """int32 [..., n] -> int8 [..., 8 n] in [-8, 7]."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=words.device)
    return ((words.unsqueeze(-1) >> shifts & 15) - 8).flatten(-2).to(torch.int8)
