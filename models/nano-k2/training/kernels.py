"""The two operations that depend on the machine: attention over packed documents, and routed experts.

On a GPU they are FlashAttention's variable-length kernel and torch's grouped GEMM; on a CPU plain loops, slow and
easy to trust, which the checks compare with `transformers`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, cu: Tensor, longest: int, scale: float) -> Tensor:
    """Causal attention within documents. q, k [T, H, 192], v [T, H, 128], cu int32 [documents + 1] -> [T, H, 128]."""
    if q.is_cuda:
        padded = F.pad(v, (0, q.shape[-1] - v.shape[-1]))
        out = torch.ops.aten._flash_attention_forward(q, k, padded, cu, cu, longest, longest, 0.0, True, False, scale=scale)[0]
        return out[..., : v.shape[-1]]
    outs = []
    for begin, end in zip(cu[:-1].tolist(), cu[1:].tolist(), strict=True):
        if end > begin:
            rows = (t[begin:end].transpose(0, 1).unsqueeze(0) for t in (q, k, v))
            out = F.scaled_dot_product_attention(*rows, is_causal=True, scale=scale)
            outs.append(out.squeeze(0).transpose(0, 1))
    return torch.cat(outs)


class Dispatch(torch.autograd.Function):
    """Rows copied into expert order; the gradient is gathered back instead of scattered with atomics."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.k = k  # type: ignore[attr-defined]
        return x[order // k]

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def, override]
        (inverse,) = ctx.saved_tensors
        return grad[inverse].unflatten(0, (-1, ctx.k)).sum(1), None, None, None


class Combine(torch.autograd.Function):
    """Rows copied back from expert order to token order."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, y: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return y[inverse]

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def, override]
        (order,) = ctx.saved_tensors
        return grad[order], None, None


def routed(x: Tensor, idx: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """x [T, H], idx [T, K], weights float32 [T, K], gate_up [E, 2 I, H], down [E, H, I] -> ([T, H], load [E])."""
    k, experts = idx.shape[1], gate_up.shape[0]
    flat = idx.flatten()
    order = torch.argsort(flat, stable=True)
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    load = torch.zeros(experts, dtype=torch.int64, device=x.device).scatter_add_(0, flat, torch.ones_like(flat))
    rows = Dispatch.apply(x, order, inverse, k)
    if x.is_cuda:
        ends = load.cumsum(0).to(torch.int32)
        gate, up = torch._grouped_mm(rows, gate_up.transpose(1, 2), offs=ends).chunk(2, dim=-1)
        out = torch._grouped_mm(F.silu(gate) * up, down.transpose(1, 2), offs=ends)
    else:
        parts = []
        for expert, part in enumerate(rows.split(load.tolist())):
            gate, up = F.linear(part, gate_up[expert]).chunk(2, dim=-1)
            parts.append(F.linear(F.silu(gate) * up, down[expert]))
        out = torch.cat(parts)
    out = Combine.apply(out, order, inverse).unflatten(0, (-1, k))
    return (out.float() * weights.unsqueeze(-1)).sum(1).to(x.dtype), load
