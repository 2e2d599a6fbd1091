"""Proves, at start-up, that this machine's bits do not depend on the batch.

Every product shape of the model is run on random rows in blocks of one quantum, and then at
other row counts, offsets and batch counts; any differing bit disqualifies the quantum. What
is proven is this machine, this thread count, this library, these shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.config import ModelConfig
from kimi_k2.expert_ffn import expert_ffn
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.latent_cache import BLOCK_SIZE

_MAX_WEIGHTS = 1 << 24
"""Larger weights are proven with fewer columns or a smaller batch, to bound start-up time."""
_MAX_EXPERT_WEIGHTS = 1 << 22
_BLOCK_COUNTS = (2, 3, 4, 5, 7, 8, 11, 16, 17, 24, 32, 33, 64, 100, 128)
_EXPERT_LOADS = (1, 90, 7, 33)
_BATCH_COUNTS = (1, 2, 3, 5, 8, 16)


@dataclass(frozen=True, kw_only=True)
class ProductShape:
    """A product [rows, inner] x [inner, columns]; `batch` None for a plain one.

    transposed: the right operand is stored [columns, inner].
    wide: done in float32 whatever the activation dtype is (gate, attention).
    """

    inner: int
    columns: int
    batch: int | None = None
    transposed: bool = True
    wide: bool = False


def product_shapes(config: ModelConfig) -> tuple[ProductShape, ...]:
    """Every product of the model, the largest weights cut to `_MAX_WEIGHTS`."""
    return tuple(_cut(shape) for shape in (*_plain_shapes(config), *_batched_shapes(config)))


def _cut(shape: ProductShape) -> ProductShape:
    columns = min(shape.columns, _MAX_WEIGHTS // shape.inner)
    if shape.batch is None:
        return replace(shape, columns=columns)
    batch = max(1, min(shape.batch, _MAX_WEIGHTS // (shape.inner * columns)))
    return replace(shape, columns=columns, batch=batch)


def _plain_shapes(config: ModelConfig) -> list[ProductShape]:
    hidden, heads = config.hidden_size, config.num_attention_heads
    shared = config.moe_intermediate_size * config.n_shared_experts
    queries = heads * config.qk_head_dim
    low_rank = config.q_lora_rank
    sizes = {
        (hidden, config.latent_dim),
        (heads * config.v_head_dim, hidden),
        (hidden, 2 * config.intermediate_size),
        (config.intermediate_size, hidden),
        (hidden, 2 * shared),
        (shared, hidden),
        (hidden, config.vocab_size),
    }
    sizes |= {(hidden, queries)} if low_rank is None else {(hidden, low_rank), (low_rank, queries)}
    gate = ProductShape(inner=hidden, columns=config.n_routed_experts, wide=True)
    return [gate] + [ProductShape(inner=inner, columns=columns) for inner, columns in sorted(sizes)]


def _batched_shapes(config: ModelConfig) -> list[ProductShape]:
    hidden, heads = config.hidden_size, config.num_attention_heads
    width, latent = config.moe_intermediate_size, config.kv_lora_rank
    many = max(_BATCH_COUNTS)
    return [
        ProductShape(inner=config.qk_nope_head_dim, columns=latent, batch=heads, transposed=False),
        ProductShape(inner=latent, columns=config.v_head_dim, batch=heads),
        ProductShape(inner=config.latent_dim, columns=BLOCK_SIZE, batch=many, wide=True),
        ProductShape(inner=BLOCK_SIZE, columns=latent, batch=many, transposed=False, wide=True),
        ProductShape(inner=hidden, columns=2 * width, batch=many),
        ProductShape(inner=width, columns=hidden, batch=many),
    ]


def first_variant(candidate: Numerics, shapes: tuple[ProductShape, ...]) -> ProductShape | None:
    """The first shape whose rows change bits with the batch under the candidate, if any."""
    generator = torch.Generator().manual_seed(0)

    for shape in shapes:
        dtype = torch.float32 if shape.wide else candidate.dtype

        def random(*size: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(size, generator=generator).to(candidate.device, dtype)

        batch = shape.batch or 1
        x = random(batch, candidate.max_rows, shape.inner)
        if shape.transposed:
            weight = random(batch, shape.columns, shape.inner).transpose(1, 2)
        else:
            weight = random(batch, shape.inner, shape.columns)
        if not all(_same(candidate, shape, x, weight)):
            return shape
    return None


def expert_rows_vary(candidate: Numerics, config: ModelConfig) -> bool:
    """Whether a row's bits change with the other rows that its expert and others get.

    Widths are the model's, cut to `_MAX_EXPERT_WEIGHTS`.
    """
    generator = torch.Generator().manual_seed(1)
    hidden = config.hidden_size
    width = min(config.moe_intermediate_size, max(32, _MAX_EXPERT_WEIGHTS // hidden // 32 * 32))

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(candidate.device, candidate.dtype)

    experts = len(_EXPERT_LOADS)
    weights = ExpertWeights(
        gate_up=random(experts, 2 * width, hidden), down=random(experts, hidden, width)
    )
    slots = torch.repeat_interleave(torch.arange(experts), torch.tensor(_EXPERT_LOADS))
    slots = slots[torch.randperm(len(slots), generator=generator)].to(candidate.device)
    x = random(len(slots), hidden)
    together = expert_ffn(x, slots, weights, candidate)
    return not all(
        torch.equal(expert_ffn(x[:count], slots[:count], weights, candidate), together[:count])
        for count in (1, 2, 3, 5, 8, 21, 64, len(slots) - 1)
    )


def _same(candidate: Numerics, shape: ProductShape, x: Tensor, weight: Tensor) -> Iterator[bool]:
    quantum = candidate.row_quantum

    def product(rows: Tensor, count: int | None = None) -> Tensor:
        if shape.batch is None:
            return candidate.linear(rows[0], weight[0].T)[None]
        return candidate.batched(rows.contiguous(), weight[:count])

    single = torch.cat([product(block) for block in torch.split(x, quantum, dim=1)], dim=1)
    for blocks in _BLOCK_COUNTS:
        rows = blocks * quantum
        if rows <= candidate.max_rows:
            yield torch.equal(product(x[:, :rows]), single[:, :rows])
    shifted = product(x.roll(-1, dims=1)[:, :quantum])
    yield torch.equal(shifted, single.roll(-1, dims=1)[:, :quantum])
    if shape.batch is not None and candidate.blocks_at_once is None:
        for count in _BATCH_COUNTS:
            few = min(count, shape.batch)
            block = x[:few, :quantum]
            yield torch.equal(product(block, few), single[:few, :quantum])
