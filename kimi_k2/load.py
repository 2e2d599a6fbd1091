"""From a model directory to something that runs."""

from __future__ import annotations

from pathlib import Path

import torch

from kimi_k2.checkpoint import Checkpoint
from kimi_k2.held_experts import held_experts
from kimi_k2.local_experts import LocalExperts
from kimi_k2.model import Model
from kimi_k2.numerics import Numerics, prove_numerics


def load_router_model(
    path: Path | str, dtype: str | torch.dtype = "auto", device: torch.device | str = "cpu"
) -> Model:
    """Everything but the routed experts, proven and ready.

    Raises:
        ModelError: see `ConfigError`, `CheckpointError`, `NumericsError`.
    """
    checkpoint = Checkpoint(path)
    checkpoint.check()
    numerics = prove_numerics(checkpoint.config, dtype, device)
    weights = checkpoint.router_weights(numerics.dtype, numerics.device, numerics.arrange)
    return Model(checkpoint.config, weights, numerics)


def load_local_experts(
    path: Path | str,
    dtype: str | torch.dtype = "auto",
    device: torch.device | str = "cpu",
    numerics: Numerics | None = None,
) -> LocalExperts:
    """Every routed expert in this process.

    Args:
        numerics: of a model that was already proven here, in place of `dtype` and `device`.

    Raises:
        ModelError: see `ConfigError`, `CheckpointError`, `NumericsError`.
    """
    checkpoint = Checkpoint(path)
    if numerics is None:
        numerics = prove_numerics(checkpoint.config, dtype, device)
    experts = range(checkpoint.config.n_routed_experts)
    weights = {
        layer: held_experts(checkpoint, layer, experts, numerics)
        for layer in checkpoint.config.moe_layers
    }
    return LocalExperts(weights, numerics)
