"""Multi-head latent attention in its absorbed form, as served."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log

import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.attention_plan import AttentionPlan
from kimi_k2.config import ModelConfig
from kimi_k2.latent_cache import LatentCache
from kimi_k2.paged_attention import paged_attention
from kimi_k2.weights import AttentionWeights, QueryWeights
from kimi_k2.yarn import inverse_frequencies

_LOG2_E = 1.0 / log(2.0)
"""Makes a softmax to the base 2 one to the base e."""
LATENT_NORM_EPS = 1e-6
"""Of q_a_layernorm and kv_a_layernorm: fixed in the published model code, whatever
`rms_norm_eps` says."""


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """cos and sin of each row's position: [rows, qk_rope_head_dim // 2] float32."""

    cos: Tensor
    sin: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Rotates interleaved pairs of x [rows, ..., qk_rope_head_dim], in float32.

        The result holds the first of all pairs and then the second of all pairs; queries and
        keys agree on that, and the latent cache holds keys so.
        """
        middle = (1,) * (x.dim() - 2)
        cos = self.cos.view(x.shape[0], *middle, -1)
        sin = self.sin.view(x.shape[0], *middle, -1)
        wide = x.float()
        first, second = wide[..., 0::2], wide[..., 1::2]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


@dataclass(frozen=True)
class LatentAttention:
    """The attention of any layer; holds no weights."""

    config: ModelConfig
    numerics: Numerics

    def rotation(self, positions: Tensor) -> Rotation:
        """positions: [rows] int64."""
        angles = positions.float()[:, None] * self._frequencies
        cos, sin = self.numerics.cos_sin(angles)
        yarn = self.config.rope_scaling
        scale = 1.0 if yarn is None else yarn.rotary_scale
        return Rotation(cos=cos * scale, sin=sin * scale)

    def forward(
        self,
        x: Tensor,
        weights: AttentionWeights,
        layer: int,
        cache: LatentCache,
        plan: AttentionPlan,
        rotation: Rotation,
    ) -> Tensor:
        """Writes the rows' latents to the cache and attends.

        Args:
            x: [rows, hidden] after input_layernorm; rows after the plan's T are padding and
                leave the cache alone.

        Returns: [rows, hidden], activation dtype; finite for padding rows.
        """
        latents = self.latents(x, weights, rotation)
        cache.write(layer, plan.slots, latents[: plan.slots.shape[0]])
        nope, rope = self.queries(x, weights.query, rotation)
        absorbed = self.numerics.per_head(nope, weights.absorb_k)
        query = torch.cat((absorbed.float(), rope), dim=-1) * self.query_scale
        attended = paged_attention(
            query, cache.pages[layer], self.config.kv_lora_rank, plan, self.numerics
        )
        values = self.numerics.per_head(attended.to(x.dtype), weights.absorb_v.transpose(1, 2))
        return self.numerics.linear(values.flatten(1), weights.o_proj)

    def latents(self, x: Tensor, weights: AttentionWeights, rotation: Rotation) -> Tensor:
        """[rows, latent_dim], activation dtype: what the cache holds."""
        config = self.config
        kv = self.numerics.linear(x, weights.kv_a_proj_with_mqa)
        latent, rope = torch.split(kv, [config.kv_lora_rank, config.qk_rope_head_dim], dim=-1)
        latent = self.numerics.rms_norm(latent, weights.kv_a_layernorm, LATENT_NORM_EPS)
        return torch.cat((latent, rotation.apply(rope).to(x.dtype)), dim=-1)

    def queries(
        self, x: Tensor, weights: QueryWeights, rotation: Rotation
    ) -> tuple[Tensor, Tensor]:
        """[rows, heads, qk_nope_head_dim] activation dtype, [rows, heads, qk_rope_head_dim]
        float32."""
        if weights.q_a_proj is not None and weights.q_a_layernorm is not None:
            x = self.numerics.linear(x, weights.q_a_proj)
            x = self.numerics.rms_norm(x, weights.q_a_layernorm, LATENT_NORM_EPS)
        config = self.config
        q = self.numerics.linear(x, weights.q_b_proj)
        q = q.view(x.shape[0], config.num_attention_heads, -1)
        nope, rope = torch.split(q, [config.qk_nope_head_dim, config.qk_rope_head_dim], dim=-1)
        return nope, rotation.apply(rope)

    @property
    def softmax_scale(self) -> float:
        yarn = self.config.rope_scaling
        scale: float = self.config.qk_head_dim**-0.5
        return scale if yarn is None else scale * yarn.softmax_scale

    @property
    def query_scale(self) -> float:
        """What queries are multiplied by: the softmax is to the base 2."""
        return self.softmax_scale * _LOG2_E

    @cached_property
    def _frequencies(self) -> Tensor:
        config = self.config
        return inverse_frequencies(
            config.qk_rope_head_dim, config.rope_theta, config.rope_scaling
        ).to(self.numerics.device)
