"""Which rows meet which pages: worked out once a forward pass, used by every layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.batch import Segment
from kimi_k2.latent_cache import BLOCK_SIZE
from kimi_k2.page_walk import PageWalk, plan_walk

_BLOCK_ROWS = (32, 128)
"""Rows x heads of blocks of several tokens: the larger makes an efficient product, the smaller
wastes less on a short segment."""

BLOCKS_AT_ONCE = 16
"""Blocks that walk their pages together: their pages should stay in a processor's cache between
being gathered and being used twice."""


@dataclass(frozen=True, kw_only=True)
class PageStep:
    """One page of every block that still has one.

    active: the first `active` row blocks take part.
    pages: [at least active] int64 cache blocks; those after `active` are fillers.
    masked: bool [active, rows, BLOCK_SIZE], true where a key lies after the row's position;
        None if every row sees the whole page.
    """

    active: int
    pages: Tensor
    masked: Tensor | None


@dataclass(frozen=True, kw_only=True)
class RowBlocks:
    """Blocks of equally many query rows, each of one sequence, longest context first.

    tokens: [blocks, tokens] int64 rows of the micro-batch; a short block repeats its last row.
    places: [real] int64, where in `tokens`, read row by row, there is no repetition.
    targets: [real] int64, `tokens` at those places.
    rows: query rows of a block: tokens x heads, padded to the quantum.
    steps: page after page of the sequences.
    """

    tokens: Tensor
    places: Tensor
    targets: Tensor
    rows: int
    steps: tuple[PageStep, ...]


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """positions: [T] int64. slots: [T] int64, where each row's latent goes in the cache.

    One of `blocks` and `walk` is worked out when it is first wanted: which of them, only the
    attention knows.
    """

    positions: Tensor
    slots: Tensor
    segments: tuple[Segment, ...]
    heads: int
    numerics: Numerics

    @cached_property
    def blocks(self) -> tuple[RowBlocks, ...]:
        return _all_blocks(self.segments, self.heads, self.numerics)

    @cached_property
    def walk(self) -> PageWalk:
        return plan_walk(self.segments, self.heads)


@dataclass(frozen=True)
class _Block:
    segment: Segment
    first: int
    length: int

    @property
    def page_count(self) -> int:
        return (self.segment.position + self.first + self.length - 1) // BLOCK_SIZE + 1


def plan_attention(segments: Sequence[Segment], heads: int, numerics: Numerics) -> AttentionPlan:
    """Where the rows of segments are, in the micro-batch and in the cache."""
    lengths = np.array([segment.length for segment in segments])
    ends = np.cumsum(lengths)
    before = np.array([segment.position for segment in segments]) - (ends - lengths)
    positions = np.arange(ends[-1]) + np.repeat(before, lengths)
    sizes = [len(segment.block_table) for segment in segments]
    table = np.fromiter(chain.from_iterable(s.block_table for s in segments), np.int64, sum(sizes))
    blocks = table[np.repeat(np.cumsum(sizes) - sizes, lengths) + positions // BLOCK_SIZE]
    slots = blocks * BLOCK_SIZE + positions % BLOCK_SIZE
    return AttentionPlan(
        positions=torch.from_numpy(positions).to(numerics.device),
        slots=torch.from_numpy(slots).to(numerics.device),
        segments=tuple(segments),
        heads=heads,
        numerics=numerics,
    )


def _all_blocks(
    segments: Sequence[Segment], heads: int, numerics: Numerics
) -> tuple[RowBlocks, ...]:
    """Splits segments into row blocks and puts blocks of one size and similar context together."""
    sizes = sorted({1, *(max(1, rows // heads) for rows in _BLOCK_ROWS)})
    by_size: dict[int, list[_Block]] = {size: [] for size in sizes}
    for segment in segments:
        for first in range(0, segment.length, sizes[-1]):
            length = min(sizes[-1], segment.length - first)
            size = next(size for size in sizes if size >= length)
            by_size[size].append(_Block(segment, first, length))
    return tuple(
        _row_blocks(some, size, heads, numerics)
        for size, blocks in by_size.items()
        for some in _batches(blocks)
    )


def _batches(blocks: list[_Block]) -> Iterable[list[_Block]]:
    ordered = sorted(blocks, key=lambda block: -block.page_count)
    for first in range(0, len(ordered), BLOCKS_AT_ONCE):
        yield ordered[first : first + BLOCKS_AT_ONCE]


def _row_blocks(blocks: list[_Block], tokens: int, heads: int, numerics: Numerics) -> RowBlocks:
    lengths = torch.tensor([block.length for block in blocks])[:, None]
    offsets = torch.minimum(torch.arange(tokens)[None], lengths - 1)
    starts = torch.tensor([b.segment.start + b.first for b in blocks])[:, None]
    positions = torch.tensor([b.segment.position + b.first for b in blocks])[:, None] + offsets
    rows = numerics.padded(tokens * heads)
    row_positions = positions.repeat_interleave(heads, dim=1)
    padding = row_positions[:, -1:].expand(-1, rows - tokens * heads)
    row_positions = torch.cat((row_positions, padding), dim=1)
    places = (torch.arange(tokens)[None] < lengths).view(-1).nonzero()[:, 0]
    return RowBlocks(
        tokens=(starts + offsets).to(numerics.device),
        places=places.to(numerics.device),
        targets=(starts + offsets).view(-1)[places].to(numerics.device),
        rows=rows,
        steps=tuple(_steps(blocks, row_positions, numerics)),
    )


def _steps(blocks: list[_Block], positions: Tensor, numerics: Numerics) -> Iterable[PageStep]:
    """One transfer of tables and positions for all pages; the rest is made on the device."""
    counts = [block.page_count for block in blocks]
    filled = numerics.blocks_at_once
    table = torch.zeros(counts[0], filled or len(blocks), dtype=torch.int64)
    for number, (block, count) in enumerate(zip(blocks, counts, strict=True)):
        table[:count, number] = torch.tensor(block.segment.block_table[:count])
    table, moved = table.to(numerics.device), positions.to(numerics.device)
    keys = torch.arange(BLOCK_SIZE, device=numerics.device)
    lowest = positions[:, 0].tolist()
    for page in range(counts[0]):
        active = sum(count > page for count in counts)
        masked = None
        if min(lowest[:active]) < (page + 1) * BLOCK_SIZE - 1:
            masked = keys + page * BLOCK_SIZE > moved[:active, :, None]
        yield PageStep(active=active, pages=table[page, : filled or active], masked=masked)
