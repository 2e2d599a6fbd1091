"""Models in memory, without a checkpoint on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.config import ModelConfig
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.local_experts import LocalExperts
from kimi_k2.model import Model
from kimi_k2.numerics import prove_numerics
from kimi_k2.tensor_names import expert_prefix
from kimi_k2.weights import router_weights
from tests.support.checkpoints import Preset, config_dict, random_tensors


def random_model(
    config_overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    preset: Preset = "tiny",
    kernels: bool = True,
) -> tuple[Model, LocalExperts]:
    """A float32 model on CPU and its experts, ready to run; with torch alone, or with kernels."""
    config = ModelConfig.from_dict(config_dict(config_overrides, "float32", preset))
    tensors = random_tensors(config, seed)
    numerics = prove_numerics(config)
    if not kernels:
        numerics = replace(numerics, segments={})
    weights = router_weights(config, tensors, torch.float32, "cpu", numerics.arrange)
    experts = stacked_experts(config, tensors)
    if numerics.segments:
        experts = {layer: held.as_column_major() for layer, held in experts.items()}
    return Model(config, weights, numerics), LocalExperts(experts, numerics)


def stacked_experts(config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[int, ExpertWeights]:
    """Layer to all of its experts, from floating-point tensors under checkpoint names."""

    def stack(layer: int, projection: str) -> Tensor:
        return torch.stack(
            [
                tensors[f"{expert_prefix(layer, expert)}{projection}.weight"]
                for expert in range(config.n_routed_experts)
            ]
        )

    return {
        layer: ExpertWeights(
            gate_up=torch.cat((stack(layer, "gate_proj"), stack(layer, "up_proj")), dim=1),
            down=stack(layer, "down_proj"),
        )
        for layer in config.moe_layers
    }


def unproven_numerics(row_quantum: int = 4, fingerprint: str = "unproven") -> Numerics:
    """Float32 on CPU for tests of single operations."""
    return Numerics(
        row_quantum=row_quantum,
        max_rows=512,
        fingerprint=fingerprint,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
