"""The paged KV cache of multi-head latent attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_k2.config import ModelConfig
from kimi_k2.huge_pages import zeros

BLOCK_SIZE = 64
"""Tokens a KV block. Attention works page by page, so this size is part of the numerics."""


@dataclass(frozen=True, kw_only=True)
class LatentCache:
    """pages: [layers, num_blocks, BLOCK_SIZE, latent_dim], activation dtype.

    A token's row is its normalised latent and then its rotated rope part. Always finite, since
    a masked row still meets a weight of zero.
    """

    pages: Tensor

    @classmethod
    def empty(
        cls, config: ModelConfig, num_blocks: int, dtype: torch.dtype, device: torch.device
    ) -> LatentCache:
        shape = (config.num_hidden_layers, num_blocks, BLOCK_SIZE, config.latent_dim)
        if device.type == "cpu":
            return cls(pages=zeros(shape, dtype))
        return cls(pages=torch.zeros(shape, dtype=dtype, device=device))

    @property
    def num_blocks(self) -> int:
        return self.pages.shape[1]

    def write(self, layer: int, slots: Tensor, rows: Tensor) -> None:
        """Puts rows [n, latent_dim] at slots [n] int64 (block * BLOCK_SIZE + offset)."""
        self.pages[layer].view(-1, self.pages.shape[-1]).index_copy_(0, slots, rows)

    def wipe(self, block: int) -> None:
        """Zeroes one block in every layer."""
        self.pages[:, block].zero_()
