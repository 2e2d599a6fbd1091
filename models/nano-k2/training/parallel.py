"""Several GPUs as one: every rank has the whole model and its own batches; gradients and expert loads are averaged.

Started by torchrun; without it every function here does nothing. The ranks stay equal to the bit because all of them
apply the same averaged gradient, at the same progress (rank 0's clock, sent over gloo, so the GPU never waits for it).
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start(device: str) -> tuple[int, int]:
    """Join the group that torchrun started: (rank, ranks)."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        return 0, 1
    rank = int(os.environ["RANK"])
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    return rank, ranks


def same(value: float) -> float:
    """Rank 0's value."""
    if not dist.is_initialized():
        return value
    holder = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(holder, 0)
    return holder.item()


@torch.no_grad()
def average(params: list[nn.Parameter], loads: Tensor) -> None:
    """Gradients become their mean over the ranks, `loads` their sum, in place."""
    if not dist.is_initialized():
        return
    grads = [param.grad for param in params if param.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for grad in grads:
        grad.copy_(flat[at : at + grad.numel()].view_as(grad))
        at += grad.numel()
    total(loads)


@torch.no_grad()
def total(loads: Tensor) -> Tensor:
    """`loads` summed over the ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(loads)
    return loads


@torch.no_grad()
def level(model: nn.Module) -> None:
    """Every rank takes rank 0's weights: a safeguard against kernels that round otherwise on another GPU."""
    if dist.is_initialized():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def stop() -> None:
    """Wait for rank 0, which measures last, and leave."""
    if dist.is_initialized():
        same(0.0)
        dist.destroy_process_group()
