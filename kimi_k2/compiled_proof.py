"""Finds how the library sums, so that compiled kernels can do the same; proves that they do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.attention_plan import plan_attention
from kimi_k2.batch import Segment
from kimi_k2.config import ModelConfig
from kimi_k2.expert_ffn import ExpertWeights, expert_ffn
from kimi_k2.latent_cache import BLOCK_SIZE
from kimi_k2.paged_attention import paged_attention
from kimi_k2.self_test import ProductShape, product_shapes

_MAX_WEIGHTS = 1 << 26
"""The network of larger experts is trusted from its products, to bound start-up time."""
_EXPERT_LOADS = (1, 21, 0, 7, 2)
_LENGTHS = (256, 192, 128, 320, 384, 448, 512)


def with_kernels(numerics: Numerics, config: ModelConfig) -> Numerics:
    """The same numerics with every kernel that gives the library's bits for this model.

    Kernels exist for float32 on CPU. Where one differs in any bit the library's product is used;
    no result depends on which of the two it was.
    """
    if numerics.device.type != "cpu" or numerics.dtype != torch.float32:
        return numerics
    segments = _segments(config, numerics)
    proven = replace(numerics, segments=segments)
    if _experts_differ(proven, config) or _attention_differs(proven, config):
        return numerics
    return proven


def _segments(config: ModelConfig, numerics: Numerics) -> Mapping[tuple[int, int], int]:
    """Of the products that have one; two products of one size must agree."""
    found: dict[tuple[int, int], int | None] = {}
    for shape in product_shapes(config):
        segment = _segment(shape, numerics)
        key = (shape.inner, shape.columns)
        found[key] = segment if found.get(key, segment) == segment else None
    return {key: segment for key, segment in found.items() if segment is not None}


def _segment(shape: ProductShape, numerics: Numerics) -> int | None:
    from kimi_k2.fma_tiles import head_products

    inner, columns, rows = shape.inner, shape.columns, numerics.row_quantum
    random = _Random(inner)
    x, weight = random.values(rows, inner), random.values(inner, columns)
    stored = weight.t().contiguous().t() if shape.transposed else weight
    if shape.batch is None:
        wanted = numerics.linear(x, stored.t())
    else:
        wanted = numerics.batched(x[None], stored[None])[0]
    parts = {-(-inner // count) for count in range(1, 9)}
    rounded = {-(-part // unit) * unit for part in parts for unit in (1, 8)}
    found = torch.empty_like(wanted)
    for length in dict.fromkeys((inner, *_LENGTHS, *sorted(rounded))):
        head_products(
            x.data_ptr(),
            inner,
            0,
            rows,
            weight.data_ptr(),
            columns,
            1,
            found.data_ptr(),
            inner,
            length,
        )
        if torch.equal(found, wanted):
            return length
    return None


def _experts_differ(candidate: Numerics, config: ModelConfig) -> bool:
    hidden, width = config.hidden_size, config.moe_intermediate_size
    if 2 * hidden * width * len(_EXPERT_LOADS) > _MAX_WEIGHTS:
        return False
    random = _Random(candidate.row_quantum)
    weights = ExpertWeights(
        gate_up=random.values(len(_EXPERT_LOADS), 2 * width, hidden) / hidden**0.5,
        down=random.values(len(_EXPERT_LOADS), hidden, width) / width**0.5,
    )
    loads = torch.tensor(_EXPERT_LOADS)
    slots = torch.repeat_interleave(torch.arange(len(loads)), loads).flip(0)
    x = random.values(len(slots), hidden)
    found = expert_ffn(x, slots, weights.as_column_major(), candidate)
    return not torch.equal(found, expert_ffn(x, slots, weights, replace(candidate, segments={})))


def _attention_differs(candidate: Numerics, config: ModelConfig) -> bool:
    heads = config.num_attention_heads
    random = _Random(candidate.row_quantum)
    pages = random.values(4, BLOCK_SIZE, config.latent_dim)
    segments = (
        Segment(start=0, length=1, position=BLOCK_SIZE + 9, block_table=(1, 2)),
        Segment(start=1, length=9, position=2 * BLOCK_SIZE - 4, block_table=(3, 0, 1)),
        Segment(start=10, length=1, position=0, block_table=(2,)),
    )
    query = random.values(11, heads, config.latent_dim) / config.latent_dim**0.5

    def attended(numerics: Numerics) -> Tensor:
        plan = plan_attention(segments, heads, numerics)
        return paged_attention(query, pages, config.kv_lora_rank, plan, numerics)

    return not torch.equal(attended(candidate), attended(replace(candidate, segments={})))


class _Random:
    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def values(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)
