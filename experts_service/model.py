"""What a worker serves from: checkpoint, arithmetic, experts."""

from __future__ import annotations

from dataclasses import dataclass

from experts_service.config import WorkerConfig
from experts_service.named_experts import check_experts
from experts_service.store import ExpertStore
from experts_service.token_counts import TokenCounts
from kimi_k2.checkpoint import Checkpoint
from kimi_k2.config import ModelConfig
from kimi_k2.held_experts import held_experts
from kimi_k2.numerics import Numerics, prove_numerics


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedModel:
    """An opened model whose arithmetic is proven; `store` fills while it loads."""

    config: ModelConfig
    model_hash: str
    numerics: Numerics
    store: ExpertStore
    counts: TokenCounts


def open_model(worker: WorkerConfig) -> ServedModel:
    """Checks the whole checkpoint and the machine's arithmetic; loads no expert yet.

    Raises:
        ModelError: the checkpoint cannot be served, a configured expert does not exist, or the
            arithmetic depends on the batch.
    """
    checkpoint = Checkpoint(worker.model)
    checkpoint.check()
    config = checkpoint.config
    check_experts(worker.experts, config)
    numerics = prove_numerics(config, worker.dtype, worker.device)

    return ServedModel(
        config=config,
        model_hash=checkpoint.model_hash,
        numerics=numerics,
        store=ExpertStore(
            config.n_routed_experts,
            lambda layer, experts: held_experts(checkpoint, layer, experts, numerics),
        ),
        counts=TokenCounts(config.moe_layers, config.n_routed_experts),
    )
