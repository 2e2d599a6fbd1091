"""Paged attention by compiled kernels: every block of rows reads its pages where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.batch import Segment
from kimi_k2.latent_cache import BLOCK_SIZE

_BLOCK_ROWS = 128
"""Rows x heads that read a page together: enough for full tiles, few enough for a cache."""


@dataclass(frozen=True, kw_only=True)
class PageWalk:
    """blocks: int64 [blocks, 5], see `attention_kernels.attend`. table: int64, the segments'
    block tables one after another."""

    blocks: npt.NDArray[np.int64]
    table: npt.NDArray[np.int64]
    heads: int

    def shares(self, number: int) -> list[npt.NDArray[np.int64]]:
        """`blocks` cut into at most `number` pieces that take about the same time.

        A segment stays in one piece: its later rows attend to what its earlier ones write.
        """
        if number == 1:
            return [self.blocks]
        tokens, pages, segment = self.blocks[:, 1] // self.heads, self.blocks[:, 4], 3
        # The projections of a token take about as long as a page of keys.
        costs = np.cumsum(tokens + pages)
        starts = np.flatnonzero(np.diff(self.blocks[:, segment])) + 1
        cuts = {
            int(starts[np.abs(costs[starts - 1] - costs[-1] * n / number).argmin()])
            for n in range(1, number)
            if len(starts)
        }
        return np.split(self.blocks, sorted(cuts))


def plan_walk(segments: Sequence[Segment], heads: int) -> PageWalk:
    """Cuts segments into blocks of consecutive rows."""
    tokens = max(1, _BLOCK_ROWS // heads)
    blocks, tables = [], 0
    for segment in segments:
        for first in range(0, segment.length, tokens):
            length = min(tokens, segment.length - first)
            position = segment.position + first
            pages = (position + length - 1) // BLOCK_SIZE + 1
            row = (segment.start + first) * heads
            blocks.append((row, length * heads, position, tables, pages))
        tables += len(segment.block_table)
    table = chain.from_iterable(segment.block_table for segment in segments)
    return PageWalk(
        blocks=np.array(blocks, np.int64),
        table=np.fromiter(table, np.int64, tables),
        heads=heads,
    )


def walk_pages(
    query: Tensor, pages: Tensor, value_dim: int, walk: PageWalk, numerics: Numerics
) -> Tensor:
    """See `kimi_k2.paged_attention.paged_attention`; the same bits."""
    from kimi_k2 import attention_kernels as kernels

    keys, values = _products(query.shape[2], value_dim)
    rows = query.shape[0] * query.shape[1]
    out = query.new_zeros(rows, value_dim)
    kernels.attend(
        query.contiguous().view(rows, -1).numpy(),
        pages.numpy(),
        walk.blocks,
        walk.table,
        walk.heads,
        (numerics.segments[keys], numerics.segments[values]),
        out.numpy(),
    )
    return out.view(query.shape[0], query.shape[1], value_dim)


def can_walk(latent_dim: int, value_dim: int, numerics: Numerics) -> bool:
    return all(shape in numerics.segments for shape in _products(latent_dim, value_dim))


def _products(latent_dim: int, value_dim: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (latent_dim, BLOCK_SIZE), (BLOCK_SIZE, value_dim)
