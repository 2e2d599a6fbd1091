"""The forward pass: everything but the routed experts, which it asks for."""

from __future__ import annotations

from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.batch import ForwardResult, MicroBatch
from kimi_k2.compiled_proof import layer_math
from kimi_k2.config import ModelConfig
from kimi_k2.experts import Experts
from kimi_k2.latent_cache import LatentCache
from kimi_k2.layer_math import RunningPass
from kimi_k2.parking import Parking
from kimi_k2.weights import RouterWeights


class Model:
    """Immutable after construction; any number of forward passes may be in flight."""

    def __init__(self, config: ModelConfig, weights: RouterWeights, numerics: Numerics) -> None:
        self.config = config
        self.numerics = numerics
        self.math = layer_math(config, weights, numerics)

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

        Rows never depend on the other rows of the batch, bit for bit.
        """
        running = self.math.start(batch, cache)
        parking = Parking(batch.segments, running.rows)
        routed: Tensor | None = None
        for layer in range(self.config.num_hidden_layers):
            routed = await _run_layer(layer, routed, running, experts, parking)
            if parking.all_parked:
                break
        return ForwardResult(
            logits=await running.logits(batch.logit_rows, routed),
            missing=parking.missing,
            broken=running.broken(),
        )


async def _run_layer(
    layer: int, before: Tensor | None, running: RunningPass, experts: Experts, parking: Parking
) -> Tensor | None:
    """From what the routed experts of the layer before gave to what those of this one do."""
    x, routing = await running.attend(layer, before)
    if routing is None:
        return None
    pending = await experts.dispatch(
        layer, x, routing.topk_idx, routing.topk_weights, parking.active
    )
    running.run_mlp()
    return parking.settle(await pending)
