"""Does the checkpoint mean the same to others? Run after an export, on a CPU.

Compares the unpacking with the compressed-tensors library, the training model's losses with `transformers`'
DeepseekV3ForCausalLM on dequantized weights, and greedy tokens of both.

    python check.py --model ..
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from safetensors.torch import load_file
from torch import Tensor
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

import tokenizer
from evaluate import load_model
from quantize import dequantize, unpack


def hf_state(folder: Path) -> dict[str, Tensor]:
    """transformers' state dict: experts unpacked by the library, stacked per layer."""
    raw: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw |= load_file(path)
    state = {n: t for n, t in raw.items() if not n.endswith(("_packed", "_scale", "_shape"))}
    layers = {n.split(".")[2] for n in raw if n.endswith("weight_packed")}
    for layer in layers:
        stacks: dict[str, list[Tensor]] = {"gate_proj": [], "up_proj": [], "down_proj": []}
        experts = sum(f"layers.{layer}." in n and n.endswith("gate_proj.weight_packed") for n in raw)
        for expert in range(experts):
            for part, stack in stacks.items():
                name = f"model.layers.{layer}.mlp.experts.{expert}.{part}."
                packed, scale = raw[name + "weight_packed"], raw[name + "weight_scale"]
                theirs = unpack_from_int32(packed, 4, torch.Size(raw[name + "weight_shape"].tolist()))
                if not torch.equal(theirs, unpack(packed)):
                    raise SystemExit(f"{name}: the library unpacks otherwise")
                stack.append(dequantize(theirs, scale))
        prefix = f"model.layers.{layer}.mlp.experts."
        state[prefix + "gate_up_proj"] = torch.stack([torch.cat(p) for p in zip(stacks["gate_proj"], stacks["up_proj"], strict=True)])
        state[prefix + "down_proj"] = torch.stack(stacks["down_proj"])
    return state


def hf_model(folder: Path) -> DeepseekV3ForCausalLM:
    raw = json.loads((folder / "config.json").read_text())
    for key in ("quantization_config", "model_type", "architectures", "dtype", "torch_dtype"):
        raw.pop(key)
    model = DeepseekV3ForCausalLM(DeepseekV3Config(**raw))
    missing, unexpected = model.load_state_dict(hf_state(folder), strict=False)
    if missing or unexpected:
        raise SystemExit(f"missing {missing[:5]}, unexpected {unexpected[:5]}")
    return model.float().eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    encoding = tokenizer.load(args.model)
    theirs, ours = hf_model(args.model), load_model(args.model, torch.device("cpu"))
    text = (args.model / "chat_template.jinja").read_text() + "The quick brown fox jumps over the lazy dog. " * 20
    ids = torch.tensor(encoding.encode_ordinary(text))
    with torch.no_grad():
        wanted = theirs(ids[None]).logits[0]
        cu = torch.tensor([0, len(ids)], dtype=torch.int32)
        hidden, _ = ours.hidden(ids, torch.arange(len(ids)), cu, len(ids), torch.float32)
        got = ours.logits(hidden)
    losses = [F.cross_entropy(logits[:-1], ids[1:]).item() for logits in (wanted, got)]
    print(f"{len(ids)} tokens: loss {losses[0]:.6f} (transformers), {losses[1]:.6f} (training code)")
    print(f"largest difference of a float32 logit: {(wanted - got).abs().max().item():.2e}")
    agree = (wanted.argmax(-1) == got.argmax(-1)).float().mean().item()
    print(f"greedy tokens agree at {100 * agree:.2f}% of positions")
    if abs(losses[0] - losses[1]) > 1e-3:
        raise SystemExit("the losses disagree")


if __name__ == "__main__":
    main()
