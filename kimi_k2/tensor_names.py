"""The tensors a checkpoint must hold, by name, with their shapes and dtypes."""

from __future__ import annotations

from dataclasses import dataclass

from kimi_k2.config import ModelConfig

FLOATS = ("BF16", "F32", "F16")


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """dtypes: the safetensors dtype names that can be served."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...] = FLOATS


def router_tensors(config: ModelConfig) -> dict[str, TensorSpec]:
    """Everything that is not a routed expert."""
    hidden = config.hidden_size
    specs = {
        "model.embed_tokens.weight": TensorSpec(shape=(config.vocab_size, hidden)),
        "model.norm.weight": TensorSpec(shape=(hidden,)),
    }
    if not config.tie_word_embeddings:
        specs["lm_head.weight"] = TensorSpec(shape=(config.vocab_size, hidden))
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        specs |= {prefix + name: spec for name, spec in _attention(config).items()}
        moe = layer in config.moe_layers
        specs |= {prefix + name: spec for name, spec in _mlp(config, moe).items()}
    return specs


def expert_prefix(layer: int, expert: int) -> str:
    return f"model.layers.{layer}.mlp.experts.{expert}."


def _attention(config: ModelConfig) -> dict[str, TensorSpec]:
    hidden, heads = config.hidden_size, config.num_attention_heads
    per_head = config.qk_nope_head_dim + config.v_head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.kv_a_proj_with_mqa": (config.latent_dim, hidden),
        "self_attn.kv_a_layernorm": (config.kv_lora_rank,),
        "self_attn.kv_b_proj": (heads * per_head, config.kv_lora_rank),
        "self_attn.o_proj": (hidden, heads * config.v_head_dim),
    }
    if config.q_lora_rank is None:
        shapes["self_attn.q_proj"] = (heads * config.qk_head_dim, hidden)
    else:
        shapes["self_attn.q_a_proj"] = (config.q_lora_rank, hidden)
        shapes["self_attn.q_a_layernorm"] = (config.q_lora_rank,)
        shapes["self_attn.q_b_proj"] = (heads * config.qk_head_dim, config.q_lora_rank)
    return {f"{name}.weight": TensorSpec(shape=shape) for name, shape in shapes.items()}


def _mlp(config: ModelConfig, moe: bool) -> dict[str, TensorSpec]:
    hidden = config.hidden_size
    part = "mlp.shared_experts" if moe else "mlp"
    width = (
        config.moe_intermediate_size * config.n_shared_experts if moe else config.intermediate_size
    )
    specs = {
        f"{part}.gate_proj.weight": TensorSpec(shape=(width, hidden)),
        f"{part}.up_proj.weight": TensorSpec(shape=(width, hidden)),
        f"{part}.down_proj.weight": TensorSpec(shape=(hidden, width)),
    }
    if moe:
        experts = config.n_routed_experts
        specs["mlp.gate.weight"] = TensorSpec(shape=(experts, hidden))
        specs["mlp.gate.e_score_correction_bias"] = TensorSpec(shape=(experts,), dtypes=("F32",))
    return specs
