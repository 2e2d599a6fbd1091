"""Writes a checkpoint anew with every weight in float32, for engines that know no INT4 of ours.

    python -m benchmarks.peers.float32_checkpoint models/nano-k2 DIR

The names are DeepSeek-V3's, as published; values are what our engine computes with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from kimi_k2.checkpoint import Checkpoint
from kimi_k2.tensor_names import expert_prefix, router_tensors

# How a config names the architecture to libraries that do not know kimi_k2.
_MODEL_TYPE = "deepseek_v3"
_DROPPED = ("quantization_config", "torch_dtype")


def write_float32(source: Path, target: Path) -> None:
    """`target` is made; one file of weights, config.json and generation_config.json."""
    target.mkdir(parents=True, exist_ok=True)
    save_file(float32_tensors(source), target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in _DROPPED}
    kept |= {"model_type": _MODEL_TYPE, "dtype": "float32"}
    (target / "config.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")


def float32_tensors(source: Path) -> dict[str, Tensor]:
    """Every tensor by its published name."""
    checkpoint = Checkpoint(source)
    config = checkpoint.config
    width = config.moe_intermediate_size
    tensors = _stored(source, set(router_tensors(config)))
    for layer in config.moe_layers:
        experts = range(config.n_routed_experts)
        weights = checkpoint.expert_weights(layer, experts, torch.float32)
        for expert in experts:
            prefix = expert_prefix(layer, expert)
            gate_up = weights.gate_up[expert]
            tensors[f"{prefix}gate_proj.weight"] = gate_up[:width].clone()
            tensors[f"{prefix}up_proj.weight"] = gate_up[width:].clone()
            tensors[f"{prefix}down_proj.weight"] = weights.down[expert].clone()
    return tensors


def _stored(source: Path, names: set[str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, framework="pt") as shard:
            for name in names & set(shard.keys()):
                tensors[name] = shard.get_tensor(name).to(torch.float32)
    return tensors


if __name__ == "__main__":
    write_float32(Path(sys.argv[1]), Path(sys.argv[2]))
