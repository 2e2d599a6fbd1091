"""The weights of everything but the routed experts, arranged for serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_k2.config import ModelConfig
from kimi_k2.gate import GateWeights


@dataclass(frozen=True, kw_only=True)
class QueryWeights:
    """q_a_proj and q_a_layernorm are None where `q_lora_rank` is null; q_b_proj then is q_proj."""

    q_a_proj: Tensor | None
    q_a_layernorm: Tensor | None
    q_b_proj: Tensor


@dataclass(frozen=True, kw_only=True)
class AttentionWeights:
    """kv_b_proj taken apart, so that queries meet the latent directly (absorbed MLA).

    absorb_k: [heads, qk_nope_head_dim, kv_lora_rank].
    absorb_v: [heads, v_head_dim, kv_lora_rank].
    """

    query: QueryWeights
    kv_a_proj_with_mqa: Tensor
    kv_a_layernorm: Tensor
    absorb_k: Tensor
    absorb_v: Tensor
    o_proj: Tensor


@dataclass(frozen=True, kw_only=True)
class MlpWeights:
    """gate_up: [2 * width, hidden], gate_proj's rows first. down: [hidden, width]."""

    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """mlp: the dense layer's, or the shared experts' where there is a gate."""

    input_layernorm: Tensor
    attention: AttentionWeights
    post_attention_layernorm: Tensor
    mlp: MlpWeights
    gate: GateWeights | None


@dataclass(frozen=True, kw_only=True)
class RouterWeights:
    """embed_tokens, lm_head: [vocab, hidden]; one tensor where the checkpoint ties them."""

    embed_tokens: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    lm_head: Tensor


def router_weights(
    config: ModelConfig,
    stored: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device | str,
    arrange: Callable[[Tensor], Tensor] = lambda weight: weight,
) -> RouterWeights:
    """Casts and arranges tensors under their checkpoint names.

    The gate stays float32: a bfloat16 gate weight is widened, the bias is never cast.

    Args:
        arrange: lays out in memory every matrix [..., out, in] that rows are multiplied by.
    """

    def take(name: str) -> Tensor:
        weight = stored[name].to(device=device, dtype=dtype)
        return arrange(weight) if weight.dim() > 1 else weight

    embed_tokens = stored["model.embed_tokens.weight"].to(device=device, dtype=dtype)
    return RouterWeights(
        embed_tokens=embed_tokens,
        layers=tuple(
            _layer(config, layer, stored, take, device, arrange)
            for layer in range(config.num_hidden_layers)
        ),
        norm=take("model.norm.weight"),
        lm_head=embed_tokens if config.tie_word_embeddings else take("lm_head.weight"),
    )


def _layer(
    config: ModelConfig,
    layer: int,
    stored: Mapping[str, Tensor],
    take: Callable[[str], Tensor],
    device: torch.device | str,
    arrange: Callable[[Tensor], Tensor],
) -> LayerWeights:
    prefix = f"model.layers.{layer}."

    def part(name: str) -> Tensor:
        return take(f"{prefix}{name}.weight")

    gate = None
    if layer in config.moe_layers:
        gate = GateWeights(
            weight=arrange(stored[f"{prefix}mlp.gate.weight"].to(device, torch.float32)),
            e_score_correction_bias=stored[f"{prefix}mlp.gate.e_score_correction_bias"].to(device),
        )
    mlp = "mlp" if gate is None else "mlp.shared_experts"
    return LayerWeights(
        input_layernorm=part("input_layernorm"),
        attention=_attention(config, lambda name: part(f"self_attn.{name}"), arrange),
        post_attention_layernorm=part("post_attention_layernorm"),
        mlp=MlpWeights(
            gate_up=arrange(torch.cat((part(f"{mlp}.gate_proj"), part(f"{mlp}.up_proj")))),
            down=part(f"{mlp}.down_proj"),
        ),
        gate=gate,
    )


def _attention(
    config: ModelConfig, part: Callable[[str], Tensor], arrange: Callable[[Tensor], Tensor]
) -> AttentionWeights:
    kv_b = part("kv_b_proj").reshape(config.num_attention_heads, -1, config.kv_lora_rank)
    k, v = torch.split(kv_b, [config.qk_nope_head_dim, config.v_head_dim], dim=1)
    low_rank = config.q_lora_rank is not None
    return AttentionWeights(
        query=QueryWeights(
            q_a_proj=part("q_a_proj") if low_rank else None,
            q_a_layernorm=part("q_a_layernorm") if low_rank else None,
            q_b_proj=part("q_b_proj" if low_rank else "q_proj"),
        ),
        kv_a_proj_with_mqa=part("kv_a_proj_with_mqa"),
        kv_a_layernorm=part("kv_a_layernorm"),
        absorb_k=k.contiguous(),
        absorb_v=arrange(v.contiguous()),
        o_proj=part("o_proj"),
    )
