"""A hash of what this process computes, to tell replicas from machines with other bits."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.attention_plan import plan_attention
from kimi_k2.batch import Segment
from kimi_k2.config import ModelConfig
from kimi_k2.expert_ffn import expert_ffn
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.gate import GateConfig, select
from kimi_k2.int4 import dequantize
from kimi_k2.latent_cache import BLOCK_SIZE
from kimi_k2.paged_attention import paged_attention
from kimi_k2.quantization import ExpertFormat

_VERSION = b"orrery numerics 2"
_ROWS = 24
_EXPERTS = 3
_MAX_COLUMNS = 1024


def fingerprint(config: ModelConfig, numerics: Numerics) -> str:
    """sha256 over outputs on canary rows, with synthetic weights at the model's sizes.

    Covers the experts' feed-forward network in the checkpoint's format, matrix products, SiLU, the
    gate and paged attention. The same for the router and the workers of a machine, and for any
    row quantum or thread count that gives the same bits.
    """
    digest = hashlib.sha256(_VERSION)
    for name, output in _outputs(config, numerics).items():
        raw = output.contiguous().cpu().view(torch.uint8).numpy().tobytes()
        digest.update(f"{name} {output.dtype} {tuple(output.shape)} ".encode())
        digest.update(raw)
    return digest.hexdigest()


def _outputs(config: ModelConfig, numerics: Numerics) -> dict[str, Tensor]:
    canaries = _Canaries(numerics)
    hidden, width = config.hidden_size, config.moe_intermediate_size
    weights = _experts(config, canaries)
    x = canaries.values(_ROWS, hidden)
    slots = torch.arange(_ROWS, device=numerics.device) % _EXPERTS
    product = numerics.linear(
        x, canaries.values(min(config.vocab_size, _MAX_COLUMNS), hidden, hidden)
    )
    gate_weight = canaries.values(config.n_routed_experts, hidden, hidden).float()
    scores = numerics.sigmoid(numerics.linear(x.float(), gate_weight))
    topk_idx, topk_weights = select(scores, scores, GateConfig.of(config))
    norm = numerics.rms_norm(x, canaries.values(hidden), config.rms_norm_eps)
    return {
        "ffn": expert_ffn(x, slots, weights, numerics),
        "product": product,
        "silu": numerics.silu(canaries.values(_ROWS, 2 * width) * 8),
        "norm": norm,
        "topk_idx": topk_idx,
        "topk_weights": topk_weights,
        "attention": _attention(config, numerics, canaries),
    }


class _Canaries:
    """Pseudo-random values made of integers, so that every machine makes the same ones."""

    def __init__(self, numerics: Numerics) -> None:
        self._generator = torch.Generator().manual_seed(20251)
        self._numerics = numerics

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self._generator)

    def values(self, *shape_and_inner: int) -> Tensor:
        """Multiples of 1/64 in -1 to 1; a third size scales down by about its square root."""
        shape, inner = shape_and_inner[:2], shape_and_inner[2:]
        scale = 2.0 ** -(int(inner[0]).bit_length() // 2) if inner else 1.0
        values = self.integers(-64, 65, *shape).float() * (scale / 64)
        return values.to(self._numerics.device, self._numerics.dtype)


def _experts(config: ModelConfig, canaries: _Canaries) -> ExpertWeights:
    hidden, width = config.hidden_size, config.moe_intermediate_size
    return ExpertWeights(
        gate_up=_expert_weight(config, canaries, 2 * width, hidden),
        down=_expert_weight(config, canaries, hidden, width),
    )


def _expert_weight(config: ModelConfig, canaries: _Canaries, rows: int, columns: int) -> Tensor:
    quantization = config.quantization
    if quantization is None or quantization.format is not ExpertFormat.PACK_QUANTIZED:
        return canaries.values(_EXPERTS * rows, columns, columns).view(_EXPERTS, rows, columns)
    words = canaries.integers(-(1 << 31), 1 << 31, _EXPERTS, rows, columns // 8).to(torch.int32)
    scale = canaries.integers(1, 200, _EXPERTS, rows, columns // quantization.group[1])
    bits = int(columns).bit_length() // 2
    weight = dequantize(words, (scale.float() * 2.0 ** -(10 + bits)).to(torch.bfloat16))
    values = canaries.values(1, 1)
    return weight.to(values.device, values.dtype)


def _attention(config: ModelConfig, numerics: Numerics, canaries: _Canaries) -> Tensor:
    pages = canaries.values(3 * BLOCK_SIZE, config.latent_dim).view(3, BLOCK_SIZE, -1)
    heads = config.num_attention_heads
    query = canaries.values(_ROWS * heads, config.latent_dim, config.latent_dim).float()
    segments = (
        Segment(start=0, length=_ROWS - 1, position=BLOCK_SIZE - 5, block_table=(2, 0)),
        Segment(start=_ROWS - 1, length=1, position=BLOCK_SIZE + 9, block_table=(1, 2)),
    )
    return paged_attention(
        query.view(_ROWS, heads, -1),
        pages,
        config.kv_lora_rank,
        plan_attention(segments, heads, numerics),
        numerics,
    )
