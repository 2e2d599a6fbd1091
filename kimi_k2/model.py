"""The forward pass: everything but the routed experts, which it asks for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kimi_k2.arithmetic import Numerics
from kimi_k2.attention_plan import plan_attention
from kimi_k2.batch import ForwardResult, MicroBatch
from kimi_k2.config import ModelConfig
from kimi_k2.experts import Experts
from kimi_k2.gate import GateConfig, gate
from kimi_k2.latent_cache import LatentCache
from kimi_k2.mla import LatentAttention
from kimi_k2.parking import Parking
from kimi_k2.weights import LayerWeights, MlpWeights, RouterWeights


class Model:
    """Immutable after construction; any number of forward passes may be in flight."""

    def __init__(self, config: ModelConfig, weights: RouterWeights, numerics: Numerics) -> None:
        self.config = config
        self.numerics = numerics
        self._weights = weights
        self._attention = LatentAttention(config, numerics)
        self._gate = GateConfig.of(config)

    def new_cache(self, num_blocks: int) -> LatentCache:
        numerics = self.numerics
        return LatentCache.empty(self.config, num_blocks, numerics.dtype, numerics.device)

    def wipe(self, cache: LatentCache, block: int) -> None:
        """Makes a KV block that nobody uses what it was at first."""
        cache.wipe(block)

    async def forward(
        self, batch: MicroBatch, cache: LatentCache, experts: Experts
    ) -> ForwardResult:
        """Runs every layer on the micro-batch and writes its latents to the cache.

        Suspends only inside `experts.dispatch` and what it returns. Rows never depend on the
        other rows of the batch, bit for bit.
        """
        rows = batch.token_ids.shape[0]
        padding = self.numerics.padded(rows) - rows
        plan = plan_attention(batch.segments, self.config.num_attention_heads, self.numerics)
        rotation = self._attention.rotation(F.pad(plan.positions, (0, padding)))
        parking = Parking(batch.segments, rows + padding)
        x = F.embedding(F.pad(batch.token_ids, (0, padding)), self._weights.embed_tokens)
        for number, layer in enumerate(self._weights.layers):
            normed = self._norm(x, layer.input_layernorm)
            x = x + self._attention.forward(normed, layer.attention, number, cache, plan, rotation)
            x = await self._feed_forward(x, layer, number, experts, parking)
            if parking.all_parked:
                break
        return ForwardResult(
            logits=self._logits(x, batch.logit_rows),
            missing=parking.missing,
            broken=_broken(x[:rows]),
        )

    async def _feed_forward(
        self, x: Tensor, layer: LayerWeights, number: int, experts: Experts, parking: Parking
    ) -> Tensor:
        normed = self._norm(x, layer.post_attention_layernorm)
        if layer.gate is None:
            return x + self._mlp(normed, layer.mlp)
        topk_idx, topk_weights = gate(normed, layer.gate, self._gate, self.numerics)
        pending = await experts.dispatch(number, normed, topk_idx, topk_weights, parking.active)
        shared = self._mlp(normed, layer.mlp)
        routed = parking.settle(await pending)
        return x + (routed + shared)

    def _mlp(self, x: Tensor, weights: MlpWeights) -> Tensor:
        hidden = self.numerics.swiglu(self.numerics.linear(x, weights.gate_up))
        return self.numerics.linear(hidden, weights.down)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.numerics.rms_norm(x, weight, self.config.rms_norm_eps)

    def _logits(self, x: Tensor, logit_rows: tuple[int, ...]) -> Tensor:
        wanted = torch.tensor(logit_rows, dtype=torch.int64, device=x.device)
        chosen = self.numerics.pad_rows(x.index_select(0, wanted))
        logits = self.numerics.linear(self._norm(chosen, self._weights.norm), self._weights.lm_head)
        return logits[: len(logit_rows)].float()


def _broken(x: Tensor) -> frozenset[int]:
    """Rows of the residual stream that are not finite: once they are, they stay so to its end."""
    finite = x.isfinite().all(dim=1).cpu()
    return frozenset(() if bool(finite.all()) else (~finite).nonzero()[:, 0].tolist())
