"""nano-K2 for training: DeepSeek-V3's arithmetic over packed documents, float32 masters computed in bfloat16.

What inference will do is what training does: YaRN frequencies and softmax scale from `config.json`, bfloat16
weights, the gate in float32 on bfloat16 weights, and (once `quantize` is set) routed experts fake-quantized
to INT4 exactly as they are exported. A batch is one flat row of tokens with document boundaries in `cu`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from quantize import fake_quantize


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The keys of `config.json` that shape the arithmetic; others are ignored."""

    hidden_size: int
    intermediate_size: int
    kv_lora_rank: int
    moe_intermediate_size: int
    n_routed_experts: int
    num_attention_heads: int
    num_experts_per_tok: int
    num_hidden_layers: int
    q_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    rms_norm_eps: float
    rope_scaling: dict[str, float]
    rope_theta: float
    routed_scaling_factor: float
    v_head_dim: int
    vocab_size: int

    @classmethod
    def read(cls, folder: Path) -> ModelConfig:
        raw = json.loads((folder / "config.json").read_text())
        return cls(**{field.name: raw[field.name] for field in fields(cls)})

    @property
    def softmax_scale(self) -> float:
        """YaRN's temperature (mscale_all_dim = 1) on top of 1 / sqrt(head width)."""
        mscale = 0.1 * math.log(self.rope_scaling["factor"]) + 1.0
        return mscale * mscale / math.sqrt(self.qk_nope_head_dim + self.qk_rope_head_dim)


def yarn_frequencies(config: ModelConfig) -> Tensor:
    """Inverse frequencies [qk_rope / 2], float32: the low ones divided by the factor, a linear ramp between."""
    dim, base, yarn = config.qk_rope_head_dim, config.rope_theta, config.rope_scaling
    original = yarn["original_max_position_embeddings"]

    def turning(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(turning(yarn["beta_fast"])), 0)
    high = min(math.ceil(turning(yarn["beta_slow"])), dim - 1)
    plain = 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain / yarn["factor"] * ramp + plain * (1 - ramp)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """DeepSeek's: normalised in float32, rounded, then scaled in the activation dtype."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight.to(x.dtype) * wide.to(x.dtype)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """The float32 master is rounded to the activation dtype, as it will be stored."""
    return F.linear(x, weight.to(x.dtype))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Interleaved rope pairs in, halves out, as DeepSeek checkpoints have it. x [T, H, rope], cos [T, 1, rope/2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat((even * cos - odd * sin, odd * cos + even * sin), dim=-1)


class Attention(nn.Module):
    """Naive MLA over packed documents."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, heads = config, config.num_attention_heads
        self.config = config
        self.q_a_proj = weight(c.q_lora_rank, c.hidden_size)
        self.q_a_layernorm = nn.Parameter(torch.ones(c.q_lora_rank))
        self.q_b_proj = weight(heads * (c.qk_nope_head_dim + c.qk_rope_head_dim), c.q_lora_rank)
        self.kv_a_proj_with_mqa = weight(c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size)
        self.kv_a_layernorm = nn.Parameter(torch.ones(c.kv_lora_rank))
        self.kv_b_proj = weight(heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank)
        self.o_proj = weight(c.hidden_size, heads * c.v_head_dim, gain=1 / math.sqrt(2 * c.num_hidden_layers))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cu: Tensor, longest: int) -> Tensor:
        c, heads = self.config, self.config.num_attention_heads
        q = linear(rms_norm(linear(x, self.q_a_proj), self.q_a_layernorm, c.rms_norm_eps), self.q_b_proj)
        q_nope, q_rope = q.view(-1, heads, c.qk_nope_head_dim + c.qk_rope_head_dim).split((c.qk_nope_head_dim, c.qk_rope_head_dim), dim=-1)
        latent, k_rope = linear(x, self.kv_a_proj_with_mqa).split((c.kv_lora_rank, c.qk_rope_head_dim), dim=-1)
        kv = linear(rms_norm(latent, self.kv_a_layernorm, c.rms_norm_eps), self.kv_b_proj)
        k_nope, v = kv.view(-1, heads, c.qk_nope_head_dim + c.v_head_dim).split((c.qk_nope_head_dim, c.v_head_dim), dim=-1)
        q = torch.cat((q_nope, rotate(q_rope, cos, sin)), dim=-1)
        k_rope = rotate(k_rope.unsqueeze(1), cos, sin).expand(-1, heads, -1)
        k = torch.cat((k_nope, k_rope), dim=-1)
        out = kernels.attention(q, k, v, cu, longest, c.softmax_scale)
        return linear(out.reshape(x.shape[0], heads * c.v_head_dim), self.o_proj)


class Dense(nn.Module):
    """SwiGLU: the first layer's MLP and the shared expert."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.gate_proj = weight(width, config.hidden_size)
        self.up_proj = weight(width, config.hidden_size)
        self.down_proj = weight(config.hidden_size, width, gain=1 / math.sqrt(2 * config.num_hidden_layers))

    def forward(self, x: Tensor) -> Tensor:
        return linear(F.silu(linear(x, self.gate_proj)) * linear(x, self.up_proj), self.down_proj)


class Experts(nn.Module):
    """Sigmoid gate with selection bias, routed experts and the shared one. Returns (output [T, H], load [E])."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c, e = config, config.n_routed_experts
        self.config = config
        self.quantize = False
        self.gate = weight(e, c.hidden_size, gain=0.3)
        self.register_buffer("e_score_correction_bias", torch.zeros(e, dtype=torch.float32))
        self.gate_proj = weight(e, c.moe_intermediate_size, c.hidden_size)
        self.up_proj = weight(e, c.moe_intermediate_size, c.hidden_size)
        self.down_proj = weight(e, c.hidden_size, c.moe_intermediate_size, gain=1 / math.sqrt(2 * c.num_hidden_layers))
        self.shared_experts = Dense(config, c.moe_intermediate_size)

    def expert_weight(self, master: Tensor, dtype: torch.dtype) -> Tensor:
        return fake_quantize(master).to(dtype) if self.quantize else master.to(dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        scores = F.linear(x.float(), self.gate.to(torch.bfloat16).float()).sigmoid()
        idx = (scores.detach() + self.e_score_correction_bias).topk(c.num_experts_per_tok, dim=-1, sorted=False)[1]
        chosen = scores.gather(1, idx)
        weights = chosen / (chosen.sum(-1, keepdim=True) + 1e-20) * c.routed_scaling_factor
        gate_up = torch.cat((self.expert_weight(self.gate_proj, x.dtype), self.expert_weight(self.up_proj, x.dtype)), dim=1)
        down = self.expert_weight(self.down_proj, x.dtype)
        out, load = kernels.routed(x, idx, weights, gate_up, down)
        return out + self.shared_experts(x), load


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self, config: ModelConfig, dense: bool) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.input_layernorm = nn.Parameter(torch.ones(config.hidden_size))
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.Parameter(torch.ones(config.hidden_size))
        self.mlp = Dense(config, config.intermediate_size) if dense else Experts(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cu: Tensor, longest: int) -> tuple[Tensor, Tensor | None]:
        x = x + self.self_attn(rms_norm(x, self.input_layernorm, self.eps), cos, sin, cu, longest)
        y = rms_norm(x, self.post_attention_layernorm, self.eps)
        if isinstance(self.mlp, Dense):
            return x + self.mlp(y), None
        out, load = self.mlp(y)
        return x + out, load


class Model(nn.Module):
    """Embedding, layers, final norm, untied head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Parameter(torch.randn(config.vocab_size, config.hidden_size) * 0.1)
        self.layers = nn.ModuleList(Block(config, dense=i == 0) for i in range(config.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(config.hidden_size))
        self.lm_head = nn.Parameter(torch.randn(config.vocab_size, config.hidden_size) * 0.02)
        self.register_buffer("inv_freq", yarn_frequencies(config), persistent=False)

    def experts(self) -> list[Experts]:
        return [block.mlp for block in self.layers if isinstance(block.mlp, Experts)]

    def set_quantize(self, on: bool) -> None:
        """Switch INT4 fake quantization of the routed experts."""
        for layer in self.experts():
            layer.quantize = on

    def hidden(self, ids: Tensor, positions: Tensor, cu: Tensor, longest: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """ids, positions [T]; cu int32 [documents + 1]. Returns final hidden states [T, H] and loads [layers, E]."""
        angles = positions.float()[:, None] * self.inv_freq
        cos, sin = angles.cos().to(dtype).unsqueeze(1), angles.sin().to(dtype).unsqueeze(1)
        x = F.embedding(ids, self.embed_tokens.to(dtype))
        loads = []
        for block in self.layers:
            x, load = block(x, cos, sin, cu, longest)
            if load is not None:
                loads.append(load)
        return rms_norm(x, self.norm, self.config.rms_norm_eps), torch.stack(loads)

    def logits(self, hidden: Tensor) -> Tensor:
        return linear(hidden, self.lm_head)


def weight(*shape: int, gain: float = 1.0) -> nn.Parameter:
    """A float32 master [..., out, in] with variance gain^2 / in."""
    return nn.Parameter(torch.randn(*shape) * (gain / math.sqrt(shape[-1])))
