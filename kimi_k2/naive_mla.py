"""Multi-head latent attention as published: keys and values of every head, made in full.

Slow and without a cache: the oracle beside `kimi_k2.mla`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kimi_k2.mla import LatentAttention
from kimi_k2.weights import AttentionWeights


def naive_attention(x: Tensor, weights: AttentionWeights, attention: LatentAttention) -> Tensor:
    """Causal attention over one whole sequence.

    Args:
        x: [tokens, hidden] after input_layernorm, positions 0 to tokens - 1.

    Returns: [tokens, hidden], equal to the absorbed form up to rounding.
    """
    config = attention.config
    rotation = attention.rotation(torch.arange(x.shape[0], device=x.device))
    nope, rope = attention.queries(x, weights.query, rotation)
    latents = attention.latents(x, weights, rotation).float()
    latent, key_rope = torch.split(latents, [config.kv_lora_rank, config.qk_rope_head_dim], dim=-1)
    key_nope = torch.einsum("tc,hnc->thn", latent, weights.absorb_k.float())
    values = torch.einsum("tc,hvc->thv", latent, weights.absorb_v.float())
    scores = torch.einsum("qhn,khn->hqk", nope.float(), key_nope)
    scores = scores + torch.einsum("qhr,kr->hqk", rope, key_rope)
    future = torch.ones(scores.shape[1:], dtype=torch.bool, device=x.device).triu(1)
    probabilities = (
        (scores * attention.softmax_scale).masked_fill(future, float("-inf")).softmax(-1)
    )
    attended = torch.einsum("hqk,khv->qhv", probabilities, values)
    return attended.flatten(1).to(x.dtype) @ weights.o_proj.T
