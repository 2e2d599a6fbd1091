"""Everything that a router reads from its checkpoint directory."""

from __future__ import annotations

from dataclasses import dataclass

from kimi_k2.checkpoint import Checkpoint
from kimi_k2.load import load_router_model
from kimi_k2.model import Model
from kimi_k2.tokenizer import Tokenizer
from router_service.config import RouterConfig


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """The model without its routed experts, and what belongs to it."""

    model: Model
    tokenizer: Tokenizer
    model_hash: str


def load_model(config: RouterConfig) -> LoadedModel:
    """Takes seconds to minutes; meant for a thread.

    Raises:
        ModelError: the directory, a tensor or this machine's arithmetic is not fit to serve.
    """
    return LoadedModel(
        model=load_router_model(config.model, config.dtype, config.device),
        tokenizer=Tokenizer.from_dir(config.model),
        model_hash=Checkpoint(config.model).model_hash,
    )
