"""What the engine needs of a model; `kimi_k2.model.Model` is one."""

from __future__ import annotations

from typing import Any, Protocol

from kimi_k2.batch import ForwardResult, MicroBatch
from kimi_k2.experts import Experts


class ModelFacts(Protocol):
    """The part of `kimi_k2.config.ModelConfig` that limits requests."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def eos_token_ids(self) -> tuple[int, ...]: ...


class ServedModel(Protocol):
    """Everything of the model but its routed experts."""

    @property
    def config(self) -> ModelFacts: ...

    def new_cache(self, num_blocks: int) -> Any:
        """The tensors behind so many KV blocks."""
        ...

    def wipe(self, cache: Any, block: int) -> None:
        """Makes the content of one KV block finite, whatever it was."""
        ...

    async def forward(self, batch: MicroBatch, cache: Any, experts: Experts) -> ForwardResult:
        """One pass over a micro-batch; suspends only while experts compute."""
        ...
