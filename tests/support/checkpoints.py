"""Random checkpoints in Hugging Face format, small enough to write in a test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from kimi_k2.config import ModelConfig
from kimi_k2.tensor_names import expert_prefix, router_tensors

Preset = Literal["tiny", "nano"]
StoredAs = Literal["int4", "bfloat16", "float32"]

NANO_K2 = Path(__file__).parents[2] / "models" / "nano-k2"
_TOKENIZER_FILES = (
    "tiktoken.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)

_COMMON: Mapping[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "kimi_k2",
    "hidden_act": "silu",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "moe_layer_freq": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.827,
    "rms_norm_eps": 1e-5,
    "rope_theta": 50000.0,
    "max_position_embeddings": 131072,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "vocab_size": 6016,
    "rope_scaling": {
        "type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 1.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
}
_SIZES: Mapping[Preset, Mapping[str, Any]] = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "q_lora_rank": 32,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "n_routed_experts": 16,
        "num_experts_per_tok": 4,
    },
    "nano": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 128,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": 384,
        "num_experts_per_tok": 8,
    },
}
_INT4_CONFIG: Mapping[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "input_activations": None,
            "output_activations": None,
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": 32,
                "dynamic": False,
            },
        }
    },
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"],
}


def config_dict(
    config_overrides: Mapping[str, Any] | None = None,
    expert_format: StoredAs = "int4",
    preset: Preset = "tiny",
) -> dict[str, Any]:
    """A `config.json`; an override of None removes nothing, it is the value null."""
    config = {**_COMMON, **_SIZES[preset], **(config_overrides or {})}
    if expert_format == "int4":
        config["quantization_config"] = _INT4_CONFIG
    config["torch_dtype"] = "float32" if expert_format == "float32" else "bfloat16"
    return config


def write_random_checkpoint(
    directory: Path,
    config_overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    expert_format: StoredAs = "int4",
    with_tokenizer: bool = True,
    preset: Preset = "tiny",
    max_shard_bytes: int = 8 << 20,
) -> Path:
    """Writes a checkpoint and returns its directory.

    Args:
        directory: made if need be.
        config_overrides: keys of `config.json` that differ from the preset.
        expert_format: of the routed experts; the rest is float32 for "float32", else bfloat16.
        with_tokenizer: copies nano-K2's tokenizer files, those that there are.
        preset: "tiny" (hidden 64, 3 layers, 16 experts top-4) or "nano" (nano-K2's geometry).
    """
    directory.mkdir(parents=True, exist_ok=True)
    raw = config_dict(config_overrides, expert_format, preset)
    (directory / "config.json").write_text(json.dumps(raw, indent=1))
    tensors = random_tensors(ModelConfig.from_dict(raw), seed, expert_format)
    shards = list(_shards(tensors, max_shard_bytes))
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    if with_tokenizer:
        whole = raw["vocab_size"] >= _COMMON["vocab_size"]
        for name in _TOKENIZER_FILES:
            # It names tokens that end a text, which a smaller vocabulary does not have.
            if (whole or name != "generation_config.json") and (NANO_K2 / name).is_file():
                shutil.copy(NANO_K2 / name, directory / name)
    return directory


def random_tensors(
    config: ModelConfig, seed: int, expert_format: StoredAs = "float32"
) -> dict[str, Tensor]:
    """Tensors by checkpoint name, scaled so that activations stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float32 if expert_format == "float32" else torch.bfloat16

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    tensors = {}
    for name, spec in router_tensors(config).items():
        if name.endswith("e_score_correction_bias"):
            tensors[name] = normal(*spec.shape, scale=0.02)
        elif len(spec.shape) == 1:
            tensors[name] = (1 + normal(*spec.shape, scale=0.1)).to(dtype)
        else:
            scale = 1.0 if "embed" in name else spec.shape[1] ** -0.5
            tensors[name] = normal(*spec.shape, scale=scale).to(dtype)
    width, hidden = config.moe_intermediate_size, config.hidden_size
    shapes = {"gate_proj": (width, hidden), "up_proj": (width, hidden)}
    shapes["down_proj"] = (hidden, width)
    count = config.n_routed_experts
    for layer in config.moe_layers:
        for projection, (rows, columns) in shapes.items():
            stored = _experts(generator, (count, rows, columns), expert_format)
            for expert in range(count):
                for suffix, stack in stored.items():
                    name = f"{expert_prefix(layer, expert)}{projection}.{suffix}"
                    tensors[name] = stack[expert].clone()
    return tensors


def _experts(
    generator: torch.Generator, shape: tuple[int, int, int], expert_format: StoredAs
) -> dict[str, Tensor]:
    count, rows, columns = shape
    if expert_format != "int4":
        dtype = torch.float32 if expert_format == "float32" else torch.bfloat16
        weight = torch.randn(shape, generator=generator) * columns**-0.5
        return {"weight": weight.to(dtype)}
    limits = torch.iinfo(torch.int32)
    packed = torch.randint(
        limits.min, limits.max, (count, rows, columns // 8), generator=generator, dtype=torch.int32
    )
    scale = torch.rand(count, rows, columns // 32, generator=generator) + 0.5
    return {
        "weight_packed": packed,
        "weight_scale": (scale * columns**-0.5 / 4.6).to(torch.bfloat16),
        "weight_shape": torch.tensor([rows, columns]).expand(count, 2),
    }


def _shards(tensors: Mapping[str, Tensor], max_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > max_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard
