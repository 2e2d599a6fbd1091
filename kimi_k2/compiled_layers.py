"""The layers by compiled kernels: CPU, float32, and the bits of `kimi_k2.torch_layers`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.batch import MicroBatch
from kimi_k2.config import ModelConfig
from kimi_k2.latent_cache import BLOCK_SIZE, LatentCache
from kimi_k2.layer_math import Routing
from kimi_k2.mla import LATENT_NORM_EPS, LatentAttention
from kimi_k2.page_walk import plan_walk
from kimi_k2.panels import all_narrow, pack
from kimi_k2.team import Team
from kimi_k2.weights import LayerWeights, RouterWeights

_POSITIONS_AT_ONCE = 4096
_ROWS_TO_SHARE = 8
"""Fewer are not worth the waking of another thread."""

_T = TypeVar("_T")


class CompiledLayers:
    """Implements `LayerMath`.

    Holds weights of its own, in the form that kernels read; those it was made of may go.
    """

    def __init__(self, config: ModelConfig, weights: RouterWeights, numerics: Numerics) -> None:
        """The model has to be one that `compilable` takes. The `team` is one thread at first."""
        self.config = config
        self.numerics = numerics
        self._attention = LatentAttention(config, numerics)
        self._rotations = np.empty((0, 2, config.qk_rope_head_dim // 2), np.float32)
        self.facts = _facts(config, numerics, self._attention.query_scale)
        narrow = all_narrow(matrix for matrix in _all_matrices(weights))
        self.facts["narrow"] = narrow
        self._kept: list[Tensor] = []
        self._dtype = torch.bfloat16 if narrow else torch.float32
        self.layers = [self._layer(layer) for layer in weights.layers]
        self.nothing = np.zeros_like(self.layers[0])
        self.embed_tokens: NDArray[np.float32] = weights.embed_tokens.numpy()
        self.norm: NDArray[np.float32] = weights.norm.numpy()
        self.head = self._keep(pack(weights.lm_head.t(), self._dtype))
        self.team = Team(1)

    def start(self, batch: MicroBatch, cache: LatentCache) -> CompiledPass:
        return CompiledPass(self, batch, cache)

    def _layer(self, layer: LayerWeights) -> NDArray[np.void]:
        from kimi_k2.layer_kernels import LAYER

        attention, gate = layer.attention, layer.gate
        vectors = {
            "input_norm": layer.input_layernorm,
            "q_a_norm": attention.query.q_a_layernorm,
            "kv_a_norm": attention.kv_a_layernorm,
            "post_norm": layer.post_attention_layernorm,
            "bias": None if gate is None else gate.e_score_correction_bias,
        }
        record = np.zeros(1, LAYER)
        for name, vector in vectors.items():
            record[name] = 0 if vector is None else self._keep(vector)
        for name, matrix in _matrices(layer).items():
            record[name] = self._keep(pack(matrix, self._dtype))
        hidden, width = layer.mlp.down.shape
        record["width"] = width
        record["gate_up_segment"] = self.numerics.segments[hidden, 2 * width]
        record["down_segment"] = self.numerics.segments[width, hidden]
        return record

    def _keep(self, tensor: Tensor) -> int:
        """The address of what stays there as long as this lives."""
        self._kept.append(tensor.contiguous())
        return self._kept[-1].data_ptr()

    def rotations(self, positions: int) -> NDArray[np.float32]:
        """[at least `positions`, 2, rope // 2]: cos and sin; grows with the longest context."""
        if len(self._rotations) < positions:
            wanted = -(-positions // _POSITIONS_AT_ONCE) * _POSITIONS_AT_ONCE
            rotation = self._attention.rotation(torch.arange(wanted))
            self._rotations = torch.stack((rotation.cos, rotation.sin), dim=1).numpy()
        return self._rotations


class CompiledPass:
    """Implements `RunningPass`; without padding."""

    def __init__(self, layers: CompiledLayers, batch: MicroBatch, cache: LatentCache) -> None:
        config, self._layers = layers.config, layers
        self._pages = cache.pages.numpy()
        self._walk = plan_walk(batch.segments, config.num_attention_heads)
        longest = max(segment.position + segment.length for segment in batch.segments)
        self._rotations = layers.rotations(longest)
        self._x = layers.embed_tokens.take(batch.token_ids.numpy(), axis=0)
        self.rows = len(self._x)
        self._none = self._x[:0]
        self._before = layers.nothing
        self._normed, self._mlp = self._x, self._none
        self._broken = self.rows
        self._cut: dict[int, list[NDArray[np.int64]]] = {}
        self._apart = layers.team.size > 1 and self.rows >= _ROWS_TO_SHARE

    async def attend(self, layer: int, routed: Tensor | None) -> tuple[Tensor, Routing | None]:
        from kimi_k2.pass_kernels import advance

        layers = self._layers
        record, normed = layers.layers[layer], np.empty_like(self._x)
        top_k = layers.config.num_experts_per_tok
        topk_idx = np.empty((self.rows, top_k), np.int64)
        topk_weights = np.empty((self.rows, top_k), np.float32)
        rest = self._rows_of(routed)
        await self._run(
            [
                partial(
                    advance,
                    layers.facts,
                    self._before,
                    record,
                    self._pages[layer],
                    blocks,
                    self._walk.table,
                    self._rotations,
                    self._x,
                    self._normed,
                    self._mlp,
                    rest,
                    normed,
                    topk_idx,
                    topk_weights,
                )
                for blocks in self._shares(self._hands)
            ]
        )
        self._before, self._normed, self._mlp = record, normed, self._none
        if not record["gate"][0]:
            return torch.from_numpy(normed), None
        return torch.from_numpy(normed), Routing(
            topk_idx=torch.from_numpy(topk_idx), topk_weights=torch.from_numpy(topk_weights)
        )

    def run_mlp(self) -> None:
        from kimi_k2.layer_kernels import mlp_half

        if not self._apart:
            self._mlp = np.empty_like(self._x)
            mlp_half(self._layers.facts, self._before, self._normed, self._mlp)

    async def logits(self, rows: tuple[int, ...], routed: Tensor | None) -> Tensor:
        from kimi_k2.pass_kernels import finish

        layers, chosen = self._layers, np.array(rows, np.int64)
        logits = np.empty((len(rows), layers.config.vocab_size), np.float32)
        hands = max(1, min(self._hands, len(rows) // (_ROWS_TO_SHARE // 2)))
        cuts = [len(rows) * n // hands for n in range(hands + 1)]
        ends = [0, *(rows[cut] for cut in cuts[1:-1]), self.rows]
        rest = self._rows_of(routed)
        broken = await self._run(
            [
                partial(
                    finish,
                    layers.facts,
                    self._before,
                    layers.norm,
                    layers.head,
                    self._x,
                    self._normed,
                    self._mlp,
                    rest,
                    first,
                    end,
                    chosen[low:high],
                    logits[low:high],
                )
                for low, high, first, end in zip(cuts, cuts[1:], ends, ends[1:], strict=False)
            ]
        )
        self._broken = sum(broken)
        return torch.from_numpy(logits)

    def broken(self) -> frozenset[int]:
        if self._broken == 0:
            return frozenset()
        finite = np.isfinite(self._x).all(axis=1)
        return frozenset(np.flatnonzero(~finite).tolist())

    @property
    def _hands(self) -> int:
        """Threads that should share the next step. One that is done by few is done sooner if
        nobody else computes; else cutting it brings nothing."""
        return self._layers.team.idle if self._apart else 1

    def _shares(self, hands: int) -> list[NDArray[np.int64]]:
        if hands not in self._cut:
            self._cut[hands] = self._walk.shares(hands)
        return self._cut[hands]

    async def _run(self, parts: Sequence[Callable[[], _T]]) -> list[_T]:
        if self._apart:
            return await self._layers.team.run(parts)
        return [part() for part in parts]

    def _rows_of(self, routed: Tensor | None) -> NDArray[np.float32]:
        return self._none if routed is None else np.ascontiguousarray(routed.numpy())


def compilable(config: ModelConfig, weights: RouterWeights, numerics: Numerics) -> bool:
    """Whether there is a kernel for each part of the model; that its bits are right is another
    question (`kimi_k2.compiled_proof`)."""
    return (
        config.n_group == 1
        and all(shape in numerics.segments for shape in _products(config).values())
        and all(_mlp_products(layer) <= set(numerics.segments) for layer in weights.layers)
    )


def _products(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Name to (inner size, columns) of the products that are not of a feed-forward network."""
    hidden, rank, heads = config.hidden_size, config.kv_lora_rank, config.num_attention_heads
    low, queries = config.q_lora_rank, heads * config.qk_head_dim
    products = {
        "q_b": (hidden if low is None else low, queries),
        "kv_a": (hidden, config.latent_dim),
        "absorb_k": (config.qk_nope_head_dim, rank),
        "keys": (config.latent_dim, BLOCK_SIZE),
        "values": (BLOCK_SIZE, rank),
        "absorb_v": (rank, config.v_head_dim),
        "o": (heads * config.v_head_dim, hidden),
        "gate": (hidden, config.n_routed_experts),
        "head": (hidden, config.vocab_size),
    }
    return products if low is None else {"q_a": (hidden, low), **products}


def _mlp_products(layer: LayerWeights) -> set[tuple[int, int]]:
    mlp = layer.mlp
    return {(mlp.gate_up.shape[1], mlp.gate_up.shape[0]), (mlp.down.shape[1], mlp.down.shape[0])}


def _all_matrices(weights: RouterWeights) -> Iterator[Tensor]:
    yield weights.lm_head
    for layer in weights.layers:
        yield from _matrices(layer).values()


def _matrices(layer: LayerWeights) -> dict[str, Tensor]:
    """What rows are multiplied by, [..., in, out], by the names that kernels know."""
    attention, query = layer.attention, layer.attention.query
    matrices = {
        "q_b": query.q_b_proj,
        "kv_a": attention.kv_a_proj_with_mqa,
        "absorb_k": attention.absorb_k.transpose(1, 2),
        "absorb_v": attention.absorb_v,
        "o": attention.o_proj,
        "gate_up": layer.mlp.gate_up,
        "down": layer.mlp.down,
    }
    if query.q_a_proj is not None:
        matrices["q_a"] = query.q_a_proj
    if layer.gate is not None:
        matrices["gate"] = layer.gate.weight
    return {name: matrix.transpose(-1, -2) for name, matrix in matrices.items()}


def _facts(config: ModelConfig, numerics: Numerics, softmax_scale: float) -> NDArray[np.void]:
    from kimi_k2.layer_kernels import FACTS

    facts = np.zeros(1, FACTS)
    values = {
        "hidden": config.hidden_size,
        "heads": config.num_attention_heads,
        "rank": config.kv_lora_rank,
        "rope": config.qk_rope_head_dim,
        "nope": config.qk_nope_head_dim,
        "value_dim": config.v_head_dim,
        "q_rank": config.q_lora_rank or 0,
        "experts": config.n_routed_experts,
        "normalised": config.norm_topk_prob,
        "eps": config.rms_norm_eps,
        "latent_eps": LATENT_NORM_EPS,
        "softmax_scale": softmax_scale,
        "routed_scale": config.routed_scaling_factor,
    }
    for name, shape in _products(config).items():
        values[f"{name}_segment"] = numerics.segments[shape]
    for name, value in values.items():
        facts[name] = value
    return facts
