"""Finds how the library sums, so that compiled kernels can do the same; proves that they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

_MAX_WEIGHTS = 1 << 22
"""Larger products are proven with fewer columns, to bound start-up time."""
_EXPERT_LOADS = (1, 21, 0, 7, 2)
_LENGTHS = (256, 192, 128, 320, 384, 448, 512)


def with_kernels(numerics: Numerics, config: ModelConfig) -> Numerics:
    """The same numerics with every kernel that gives the library's bits for this model.

    Kernels exist for float32 on CPU. Where one differs in any bit the library's product is used;
    no result depends on which of the two it was.
    """
    if numerics.device.type != "cpu" or numerics.dtype != torch.float32:
        return numerics
    hidden, width = config.hidden_size, config.moe_intermediate_size
    experts = _segments([(hidden, 2 * width), (width, hidden)], numerics)
    if _experts_differ(replace(numerics, segments=experts), config):
        experts = {}
    pages = [(config.latent_dim, BLOCK_SIZE), (BLOCK_SIZE, config.kv_lora_rank)]
    attention = _segments(pages, numerics)
    if _attention_differs(replace(numerics, segments=attention), config):
        attention = {}
    return replace(numerics, segments={**experts, **attention})


def _segments(
    shapes: Iterable[tuple[int, int]], numerics: Numerics
) -> Mapping[tuple[int, int], int]:
    """Empty unless there is a segment for every shape."""
    found = {}
    for inner, columns in shapes:
        segment = _segment(inner, min(columns, max(1, _MAX_WEIGHTS // inner)), numerics)
        if segment is None:
            return {}
        found[inner, columns] = segment
    return found


def _segment(inner: int, columns: int, numerics: Numerics) -> int | None:
    from kimi_k2.fma_tiles import product

    generator = torch.Generator().manual_seed(inner)
    x = torch.randn(1, numerics.row_quantum, inner, generator=generator)
    weight = torch.randn(1, inner, columns, generator=generator)
    wanted = numerics.batched(x, weight)[0]
    parts = {-(-inner // count) for count in range(1, 9)}
    rounded = {-(-part // unit) * unit for part in parts for unit in (1, 8)}
    for length in dict.fromkeys((inner, *_LENGTHS, *sorted(rounded))):
        found = torch.empty_like(wanted)
        product(
            x.data_ptr(),
            inner,
            1,
            x.shape[1],
            weight.data_ptr(),
            columns,
            columns,
            found.data_ptr(),
            columns,
            inner,
            length,
        )
        if torch.equal(found, wanted):
            return length
    return None


def _experts_differ(candidate: Numerics, config: ModelConfig) -> bool:
    """At the model's hidden size and width, which are cut only where they are very large."""
    if not candidate.segments:
        return True
    hidden, width = config.hidden_size, config.moe_intermediate_size
    if 2 * hidden * width * len(_EXPERT_LOADS) > 1 << 26:
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
    if not candidate.segments:
        return True
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
