"""The seam between the order of a forward pass and the arithmetic of its layers.

`kimi_k2.torch_layers` is the oracle and runs anywhere; `kimi_k2.compiled_layers` gives the same
bits on CPU in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from kimi_k2.batch import MicroBatch
from kimi_k2.latent_cache import LatentCache


@dataclass(frozen=True, kw_only=True)
class Routing:
    """What the gate chose: topk_idx [rows, k] int64, ascending; topk_weights [rows, k] float32."""

    topk_idx: Tensor
    topk_weights: Tensor


class RunningPass(Protocol):
    """One forward pass on its way: the residual stream of a micro-batch, layer after layer.

    Nothing of it is shared with other passes, so any number may be between two layers.
    """

    @property
    def rows(self) -> int:
        """Rows of the residual stream: those of the batch, and then any padding."""
        ...

    async def attend(self, layer: int, routed: Tensor | None) -> tuple[Tensor, Routing | None]:
        """Adds the rest of the layer before and this layer's attention; writes the rows' latents
        to the cache.

        Args:
            routed: [rows, hidden], what the routed experts of the layer before gave; None where it
                has none.

        Returns: what the layer's experts get, [rows, hidden], activation dtype; and where the
            gate sends it, None in a dense layer.
        """
        ...

    def run_mlp(self) -> None:
        """May compute what `attend` left to be done of its layer: the dense network, or the shared
        expert. For the time while workers compute the routed ones."""
        ...

    async def logits(self, rows: tuple[int, ...], routed: Tensor | None) -> Tensor:
        """Adds the rest of the last layer. Returns [len(rows), vocab] float32.

        Args:
            routed: see `attend`.
        """
        ...

    def broken(self) -> frozenset[int]:
        """Rows that are not finite: once a row is not, it stays so to the end."""
        ...


class LayerMath(Protocol):
    """The arithmetic of a model's layers, with its weights."""

    def start(self, batch: MicroBatch, cache: LatentCache) -> RunningPass: ...
