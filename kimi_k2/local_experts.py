"""The routed experts computed in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.combine import combine
from kimi_k2.expert_ffn import expert_ffn
from kimi_k2.experts import RoutedRows
from kimi_k2.held_experts import HeldExperts
from kimi_k2.routed_rows import compiled_rows


@dataclass(frozen=True)
class _Ready(Awaitable[RoutedRows]):
    """A result that is already there: awaiting it does not suspend."""

    rows: RoutedRows

    def __await__(self) -> Generator[None, None, RoutedRows]:
        yield from ()
        return self.rows


class LocalExperts:
    """Implements `Experts` with every expert of every layer in memory; never suspends.

    weights: layer number to all experts of the layer, slot = logical expert id.
    """

    def __init__(self, weights: Mapping[int, HeldExperts], numerics: Numerics) -> None:
        self._weights = dict(weights)
        self._numerics = numerics

    async def dispatch(
        self, layer: int, x: Tensor, topk_idx: Tensor, topk_weights: Tensor, active: Tensor | None
    ) -> Awaitable[RoutedRows]:
        """See `Experts.dispatch`; rows that are not active come back as zeros."""
        if active is None:
            return _Ready(RoutedRows(rows=self._routed(layer, x, topk_idx, topk_weights)))
        chosen = active.nonzero()[:, 0].to(x.device)
        routed = self._routed(layer, x[chosen], topk_idx[chosen], topk_weights[chosen])
        return _Ready(RoutedRows(rows=torch.zeros_like(x).index_copy_(0, chosen, routed)))

    def is_live(self, layer: int, expert: int) -> bool:
        return layer in self._weights

    def _routed(self, layer: int, x: Tensor, topk_idx: Tensor, topk_weights: Tensor) -> Tensor:
        rows, top_k = topk_idx.shape
        weights = self._weights[layer]
        slots = topk_idx.flatten()
        if x.device.type == "cpu":
            compiled = compiled_rows(
                x,
                np.full(rows, top_k),
                slots.numpy(),
                np.ones(rows, np.bool_),
                topk_weights.flatten().numpy(),
                weights,
                self._numerics,
            )
            if compiled is not None:
                return compiled
        pairs = x.repeat_interleave(top_k, dim=0)
        out = expert_ffn(pairs, slots, weights.plain(), self._numerics)
        return combine(out.view(rows, top_k, x.shape[1]), topk_weights)
