"""The layers in torch: any device and dtype, and the oracle of the compiled ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kimi_k2.arithmetic import Numerics
from kimi_k2.attention_plan import plan_attention
from kimi_k2.batch import MicroBatch
from kimi_k2.config import ModelConfig
from kimi_k2.gate import GateConfig, gate
from kimi_k2.latent_cache import LatentCache
from kimi_k2.layer_math import Routing
from kimi_k2.mla import LatentAttention
from kimi_k2.weights import RouterWeights


class TorchLayers:
    """Implements `LayerMath`."""

    def __init__(self, config: ModelConfig, weights: RouterWeights, numerics: Numerics) -> None:
        self.config = config
        self.weights = weights
        self.numerics = numerics
        self.attention = LatentAttention(config, numerics)
        self.gate = GateConfig.of(config)

    def start(self, batch: MicroBatch, cache: LatentCache) -> TorchPass:
        return TorchPass(self, batch, cache)


class TorchPass:
    """Implements `RunningPass`; its rows are padded to the row quantum."""

    def __init__(self, layers: TorchLayers, batch: MicroBatch, cache: LatentCache) -> None:
        numerics, self._layers, self._cache = layers.numerics, layers, cache
        self._real = batch.token_ids.shape[0]
        self.rows = numerics.padded(self._real)
        padding = self.rows - self._real
        heads = layers.config.num_attention_heads
        self._plan = plan_attention(batch.segments, heads, numerics)
        self._rotation = layers.attention.rotation(F.pad(self._plan.positions, (0, padding)))
        self._x = F.embedding(F.pad(batch.token_ids, (0, padding)), layers.weights.embed_tokens)
        self._normed = self._x
        self._mlp: Tensor | None = None
        self._layer: int | None = None

    async def attend(self, layer: int, routed: Tensor | None) -> tuple[Tensor, Routing | None]:
        self._finish_layer(routed)
        self._layer = layer
        layers, weights = self._layers, self._layers.weights.layers[layer]
        normed = self._norm(self._x, weights.input_layernorm)
        self._x = self._x + layers.attention.forward(
            normed, weights.attention, layer, self._cache, self._plan, self._rotation
        )
        self._normed = self._norm(self._x, weights.post_attention_layernorm)
        if weights.gate is None:
            return self._normed, None
        chosen = gate(self._normed, weights.gate, layers.gate, layers.numerics)
        return self._normed, Routing(topk_idx=chosen[0], topk_weights=chosen[1])

    def run_mlp(self) -> None:
        if self._layer is None:
            return
        numerics, weights = self._layers.numerics, self._layers.weights.layers[self._layer].mlp
        hidden = numerics.swiglu(numerics.linear(self._normed, weights.gate_up))
        self._mlp = numerics.linear(hidden, weights.down)

    async def logits(self, rows: tuple[int, ...], routed: Tensor | None) -> Tensor:
        self._finish_layer(routed)
        self._layer = None
        numerics, weights = self._layers.numerics, self._layers.weights
        wanted = torch.tensor(rows, dtype=torch.int64, device=self._x.device)
        chosen = numerics.pad_rows(self._x.index_select(0, wanted))
        logits = numerics.linear(self._norm(chosen, weights.norm), weights.lm_head)
        return logits[: len(rows)].float()

    def broken(self) -> frozenset[int]:
        finite = self._x[: self._real].isfinite().all(dim=1).cpu()
        return frozenset(() if bool(finite.all()) else (~finite).nonzero()[:, 0].tolist())

    def _finish_layer(self, routed: Tensor | None) -> None:
        if self._mlp is None:
            self.run_mlp()
        if self._mlp is not None:
            self._x = self._x + (self._mlp if routed is None else routed + self._mlp)
        self._mlp = None

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        layers = self._layers
        return layers.numerics.rms_norm(x, weight, layers.config.rms_norm_eps)
