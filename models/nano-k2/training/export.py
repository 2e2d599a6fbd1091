"""Write a trained model as a checkpoint directory's weights: HF names, INT4 experts, one shard a layer.

python export.py --checkpoint last.pt --model ..     re-exports a training checkpoint
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from model import Block, Dense, Experts, Model, ModelConfig
from quantize import int4, pack

PARTS = ("gate_proj", "up_proj", "down_proj")


def dense_tensors(prefix: str, mlp: Dense) -> dict[str, Tensor]:
    return {f"{prefix}.{part}.weight": getattr(mlp, part) for part in PARTS}


def layer_tensors(index: int, block: Block) -> dict[str, Tensor]:
    """Every tensor of one decoder layer, the routed experts packed."""
    prefix = f"model.layers.{index}"
    out = {f"{prefix}.{norm}.weight": getattr(block, norm) for norm in ("input_layernorm", "post_attention_layernorm")}
    for name, tensor in block.self_attn.named_parameters():
        out[f"{prefix}.self_attn.{name}.weight"] = tensor
    if isinstance(block.mlp, Dense):
        return out | dense_tensors(f"{prefix}.mlp", block.mlp)
    out[f"{prefix}.mlp.gate.weight"] = block.mlp.gate
    out |= dense_tensors(f"{prefix}.mlp.shared_experts", block.mlp.shared_experts)
    out = {name: tensor.detach().to(torch.bfloat16) for name, tensor in out.items()}
    out[f"{prefix}.mlp.gate.e_score_correction_bias"] = block.mlp.e_score_correction_bias.float()
    return out | expert_tensors(f"{prefix}.mlp.experts", block.mlp)


def expert_tensors(prefix: str, mlp: Experts) -> dict[str, Tensor]:
    out = {}
    for part in PARTS:
        q, scale = int4(getattr(mlp, part).detach())
        words, shape = pack(q), torch.tensor(q.shape[1:], dtype=torch.int64)
        for expert in range(q.shape[0]):
            name = f"{prefix}.{expert}.{part}"
            out[f"{name}.weight_packed"] = words[expert].clone()
            out[f"{name}.weight_scale"] = scale[expert].clone()
            out[f"{name}.weight_shape"] = shape.clone()
    return out


def export(model: Model, folder: Path) -> int:
    """Write shards and index into `folder`; returns the tensors' bytes."""
    layers = list(model.layers)
    shards: list[dict[str, Tensor]] = [
        {"model.embed_tokens.weight": model.embed_tokens, "model.norm.weight": model.norm, "lm_head.weight": model.lm_head}
    ]
    for index, block in enumerate(layers):
        tensors = layer_tensors(index, block)
        if isinstance(block.mlp, Dense):
            shards[0] |= tensors
        else:
            shards.append(tensors)
    shards[0] = {name: tensor.detach().to(torch.bfloat16) for name, tensor in shards[0].items()}
    files, total = {}, 0
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        held = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_file(held, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(held, file)
        total += sum(tensor.numel() * tensor.element_size() for tensor in held.values())
    index_json = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    text = json.dumps(index_json, indent=0, separators=(",", ":"))
    (folder / "model.safetensors.index.json").write_text(text + "\n")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="without it, random weights are written (for tests of loading)")
    parser.add_argument("--model", type=Path, required=True, help="directory with config.json")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = Model(ModelConfig.read(args.model))
    if args.checkpoint:
        model.load_state_dict(torch.load(args.checkpoint, map_location="cpu", weights_only=True)["model"])
    args.out.mkdir(parents=True, exist_ok=True)
    print(export(model, args.out), "bytes")


if __name__ == "__main__":
    main()
