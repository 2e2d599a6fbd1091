"""The same logits as transformers' `DeepseekV3ForCausalLM`, over prefill and 64 decode steps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from kimi_k2.config import ModelConfig
from kimi_k2.local_experts import LocalExperts
from kimi_k2.model import Model
from kimi_k2.numerics import prove_numerics
from kimi_k2.weights import router_weights
from tests.support.checkpoints import config_dict, random_tensors
from tests.support.models import stacked_experts
from tests.support.sequences import Runner

LIMIT = 2e-4
DECODE_STEPS = 64

CASES: Mapping[str, tuple[dict[str, Any], int]] = {
    "384 experts top-8, one group": ({"n_routed_experts": 384, "num_experts_per_tok": 8}, 70),
    "8 groups of which 4": (
        {"n_routed_experts": 64, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4},
        70,
    ),
    "no low-rank queries": ({"q_lora_rank": None}, 33),
    "weights not normalised, three shared experts": (
        {"norm_topk_prob": False, "n_shared_experts": 3, "first_k_dense_replace": 0},
        20,
    ),
    "no YaRN": ({"rope_scaling": None}, 70),
    "YaRN factor 32 beyond the original length": (
        {
            "max_position_embeddings": 4096,
            "rope_scaling": {
                "type": "yarn",
                "factor": 32.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
        },
        600,
    ),
    "YaRN as in K2-Instruct": ({}, 70),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case: str) -> None:
    overrides, prompt_length = CASES[case]
    raw = config_dict({"vocab_size": 512, **overrides}, "float32")
    config = ModelConfig.from_dict(raw)
    tensors = random_tensors(config, seed=7)
    theirs = _transformers_model(raw, tensors)
    numerics = prove_numerics(config)
    ours = Model(config, router_weights(config, tensors, torch.float32, "cpu"), numerics)
    experts = LocalExperts(stacked_experts(config, tensors), numerics)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 512, (prompt_length + DECODE_STEPS,), generator=generator)

    with torch.inference_mode():
        prefill = theirs(tokens[None, :prompt_length], use_cache=True)
        wanted = [prefill.logits[0]]
        cache = prefill.past_key_values
        for step in range(prompt_length, len(tokens)):
            out = theirs(tokens[None, step : step + 1], past_key_values=cache, use_cache=True)
            wanted.append(out.logits[0])

    async def run() -> Tensor:
        runner = Runner(ours, experts, num_blocks=16)
        logits = [await runner.extend(tokens[:prompt_length], all_logits=True)]
        for step in range(prompt_length, len(tokens)):
            logits.append(await runner.extend(tokens[step : step + 1]))
        return torch.cat(logits)

    got = asyncio.run(run())
    worst = (got - torch.cat(wanted)).abs().max().item()
    assert worst < LIMIT


def _transformers_model(
    raw: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> DeepseekV3ForCausalLM:
    """Built from DeepseekV3Config: AutoConfig does not know kimi_k2."""
    fields = {key: raw[key] for key in raw if key not in ("model_type", "architectures")}
    config = DeepseekV3Config(**fields, num_nextn_predict_layers=0)
    config._attn_implementation = "eager"
    model = DeepseekV3ForCausalLM(config).eval()
    state = {name: tensor for name, tensor in tensors.items() if ".mlp.experts." not in name}
    ours = ModelConfig.from_dict(raw)
    for layer, weights in stacked_experts(ours, tensors).items():
        prefix = f"model.layers.{layer}.mlp.experts."
        state[f"{prefix}gate_up_proj"] = weights.gate_up
        state[f"{prefix}down_proj"] = weights.down
    model.load_state_dict(state, strict=True)
    return model
