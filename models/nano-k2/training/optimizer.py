"""Muon for matrices (routed experts one by one), AdamW for embedding, head, gate and norms.

Muon's update has the root mean square of AdamW's (factor 0.2 sqrt(max side), as in Moonlight), so one
learning rate and weight decay serve both.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn


def orthogonalized(g: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz on a batch of matrices [B, m, n], m <= n, in bfloat16 on a GPU."""
    x = g.to(torch.bfloat16) if g.is_cuda else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.transpose(-2, -1)
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445, alpha=1.0)
    return x.float()


class Muon:
    """Parameters of one shape are updated as one batch. `lr` is passed to each step."""

    def __init__(self, params: list[nn.Parameter], momentum: float = 0.95, decay: float = 0.1) -> None:
        self.momentum, self.decay = momentum, decay
        groups: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for param in params:
            groups[(param.shape[-2], param.shape[-1])].append(param)
        self.groups = list(groups.items())
        self.buffers = [torch.zeros(sum(p.numel() // (m * n) for p in group), m, n, device=group[0].device) for (m, n), group in self.groups]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for ((m, n), group), buffer in zip(self.groups, self.buffers, strict=True):
            grads = torch.cat([p.grad.view(-1, m, n) for p in group])  # type: ignore[union-attr]
            buffer.lerp_(grads, 1 - self.momentum)
            update = torch.lerp(grads, buffer, self.momentum)
            wide = update if m <= n else update.transpose(-2, -1).contiguous()
            direction = orthogonalized(wide)
            direction = (direction if m <= n else direction.transpose(-2, -1)) * (0.2 * max(m, n) ** 0.5)
            at = 0
            for p in group:
                count = p.numel() // (m * n)
                p.mul_(1 - lr * self.decay).add_(direction[at : at + count].view_as(p), alpha=-lr)
                at += count


class Optimizer:
    """Both, with one learning rate (the gate takes half of it, so that routing settles)."""

    def __init__(self, model: nn.Module, muon: bool) -> None:
        matrices, tables, gates, others = [], [], [], []
        for name, param in model.named_parameters():
            if param.ndim >= 2 and not name.endswith(("embed_tokens", "lm_head", "mlp.gate")) and muon:
                matrices.append(param)
            elif name.endswith("mlp.gate"):
                gates.append(param)
            else:
                (tables if param.ndim >= 2 else others).append(param)
        fused = next(model.parameters()).is_cuda
        groups = [
            {"params": tables, "weight_decay": 0.1, "scale": 1.0},
            {"params": gates, "weight_decay": 0.1, "scale": 0.5},
            {"params": others, "weight_decay": 0.0, "scale": 1.0},
        ]
        self.muon = Muon(matrices) if matrices else None
        self.adam = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-10, fused=fused)
        self.params = list(model.parameters())

    def step(self, lr: float) -> Tensor:
        """Clip the gradient's norm to 1 (which matters to AdamW only), update, and return the norm before."""
        norm = nn.utils.clip_grad_norm_(self.params, 1.0, foreach=True)
        for group in self.adam.param_groups:
            group["lr"] = lr * group["scale"]
        self.adam.step()
        if self.muon:
            self.muon.step(lr)
        self.adam.zero_grad(set_to_none=True)
        for param in self.params:
            param.grad = None
        return norm
