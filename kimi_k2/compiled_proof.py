"""Finds how the library sums, so that compiled kernels can do the same; proves that they do."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from kimi_k2.arithmetic import Numerics
from kimi_k2.attention_plan import plan_attention
from kimi_k2.batch import MicroBatch, Segment
from kimi_k2.compiled_layers import CompiledLayers, compilable
from kimi_k2.config import ModelConfig
from kimi_k2.expert_proof import experts_differ
from kimi_k2.latent_cache import BLOCK_SIZE, LatentCache
from kimi_k2.layer_math import LayerMath
from kimi_k2.paged_attention import paged_attention
from kimi_k2.self_test import ProductShape, product_shapes
from kimi_k2.team import Team
from kimi_k2.torch_layers import TorchLayers
from kimi_k2.weights import RouterWeights

_LENGTHS = (256, 192, 128, 320, 384, 448, 512)
_SEGMENTS = (
    Segment(start=0, length=1, position=BLOCK_SIZE + 9, block_table=(1, 2)),
    Segment(start=1, length=9, position=2 * BLOCK_SIZE - 4, block_table=(3, 0, 4)),
    Segment(start=10, length=1, position=0, block_table=(5,)),
)
_ROWS, _BLOCKS = 11, 6

_T = TypeVar("_T")


def with_kernels(numerics: Numerics, config: ModelConfig) -> Numerics:
    """The same numerics with every kernel that gives the library's bits for this model.

    Kernels exist for float32 on CPU. Where one differs in any bit the library's product is used;
    no result depends on which of the two it was.
    """
    if numerics.device.type != "cpu" or numerics.dtype != torch.float32:
        return numerics
    from kimi_k2.exponential_proof import elementwise_differs

    if elementwise_differs():
        return numerics
    proven = replace(numerics, segments=_segments(config, numerics))
    if experts_differ(proven, config) or _attention_differs(proven, config):
        return numerics
    return proven


def layer_math(config: ModelConfig, weights: RouterWeights, numerics: Numerics) -> LayerMath:
    """The compiled layers where they give the bits of torch's with the model's own weights."""
    oracle = TorchLayers(config, weights, numerics)
    if not compilable(config, weights, numerics):
        return oracle
    candidate = CompiledLayers(config, weights, numerics)
    if _layers_differ(candidate, oracle, config):
        return oracle
    # Not before: a helper is of the scheduling class of the thread that first needs it, and the
    # thread that loads a model may be of a low one.
    candidate.team = Team(torch.get_num_threads())
    return candidate


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


def _attention_differs(candidate: Numerics, config: ModelConfig) -> bool:
    heads = config.num_attention_heads
    random = _Random(candidate.row_quantum)
    pages = random.values(_BLOCKS, BLOCK_SIZE, config.latent_dim)
    query = random.values(_ROWS, heads, config.latent_dim) / config.latent_dim**0.5

    def attended(numerics: Numerics) -> Tensor:
        plan = plan_attention(_SEGMENTS, heads, numerics)
        return paged_attention(query, pages, config.kv_lora_rank, plan, numerics)

    return not torch.equal(attended(candidate), attended(replace(candidate, segments={})))


def _layers_differ(candidate: LayerMath, oracle: LayerMath, config: ModelConfig) -> bool:
    """Compares the first layer, the first with a gate, and what comes after the last."""
    random = _Random(config.num_hidden_layers)
    layers = sorted({0, *config.moe_layers[:1]})
    pages = random.values(config.num_hidden_layers, _BLOCKS, BLOCK_SIZE, config.latent_dim)
    tokens = torch.arange(_ROWS) * (config.vocab_size // _ROWS)
    batch = MicroBatch(token_ids=tokens, segments=_SEGMENTS, logit_rows=(0, _ROWS - 1))
    routed = random.values(_ROWS, config.hidden_size)

    def outputs(math: LayerMath) -> Iterator[Tensor]:
        cache = LatentCache(pages=pages.clone())
        running = math.start(batch, cache)
        padded = F.pad(routed, (0, 0, 0, running.rows - _ROWS))
        before = None
        for layer in layers:
            normed, routing = _now(running.attend(layer, before))
            yield normed[:_ROWS].clone()
            before = None
            if routing is not None:
                before = padded
                yield routing.topk_idx[:_ROWS]
                yield routing.topk_weights[:_ROWS]
        yield _now(running.logits(batch.logit_rows, before))
        yield cache.pages

    pairs = zip(outputs(candidate), outputs(oracle), strict=True)
    return not all(torch.equal(found, wanted) for found, wanted in pairs)


def _now(pending: Coroutine[Any, Any, _T]) -> _T:
    """The result of what a team of one computes, which never waits."""
    try:
        pending.send(None)
    except StopIteration as ended:
        return cast(_T, ended.value)
    raise RuntimeError("a computation of one thread has waited for another one")


class _Random:
    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def values(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)
