"""Which rows meet which pages: worked out once a forward pass, used by every layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kimi_k2.arithmetic import Numerics
from kimi_k2.batch import Segment
from kimi_k2.latent_cache import BLOCK_SIZE

_PREFILL_ROWS = 128
"""Rows x heads of a prefill block: enough for an efficient product, few enough that a short
segment wastes little."""


@dataclass(frozen=True, kw_only=True)
class PageStep:
    """One page of every block that still has one.

    pages: [active] int64 cache blocks; the first `active` row blocks take part.
    masked: bool [active, rows, BLOCK_SIZE], true where a key lies after the row's position;
        None if every row sees the whole page.
    """

    pages: Tensor
    masked: Tensor | None


@dataclass(frozen=True, kw_only=True)
class RowBlocks:
    """Blocks of equally many query rows, each of one sequence, longest context first.

    tokens: [blocks, tokens] int64 rows of the micro-batch; a short block repeats its last row.
    real: bool [blocks, tokens], false for the repetitions.
    rows: query rows of a block: tokens x heads, padded to the quantum.
    steps: page after page of the sequences.
    """

    tokens: Tensor
    real: Tensor
    rows: int
    steps: tuple[PageStep, ...]


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """positions: [T] int64. slots: [T] int64, where each row's latent goes in the cache."""

    positions: Tensor
    slots: Tensor
    blocks: tuple[RowBlocks, ...]


@dataclass(frozen=True)
class _Block:
    segment: Segment
    first: int
    length: int

    @property
    def page_count(self) -> int:
        return (self.segment.position + self.first + self.length - 1) // BLOCK_SIZE + 1


def plan_attention(segments: Sequence[Segment], heads: int, numerics: Numerics) -> AttentionPlan:
    """Splits segments into row blocks: single rows together, longer ones into prefill blocks."""
    device = numerics.device
    tokens = max(1, _PREFILL_ROWS // heads)
    single = [_Block(s, 0, 1) for s in segments if s.length == 1]
    several = [
        _Block(s, first, min(tokens, s.length - first))
        for s in segments
        if s.length > 1
        for first in range(0, s.length, tokens)
    ]
    groups = [(single, 1), (several, tokens)]
    return AttentionPlan(
        positions=torch.cat([_range(s.position, s.length) for s in segments]).to(device),
        slots=torch.cat([_slots(s) for s in segments]).to(device),
        blocks=tuple(
            _row_blocks(group, tokens, heads, numerics) for group, tokens in groups if group
        ),
    )


def _range(start: int, length: int) -> Tensor:
    return torch.arange(start, start + length)


def _slots(segment: Segment) -> Tensor:
    positions = _range(segment.position, segment.length)
    table = torch.tensor(segment.block_table, dtype=torch.int64)
    return table[positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE


def _row_blocks(blocks: list[_Block], tokens: int, heads: int, numerics: Numerics) -> RowBlocks:
    blocks = sorted(blocks, key=lambda block: -block.page_count)
    lengths = torch.tensor([block.length for block in blocks])[:, None]
    offsets = torch.minimum(torch.arange(tokens)[None], lengths - 1)
    starts = torch.tensor([b.segment.start + b.first for b in blocks])[:, None]
    positions = torch.tensor([b.segment.position + b.first for b in blocks])[:, None] + offsets
    rows = numerics.padded(tokens * heads)
    row_positions = positions.repeat_interleave(heads, dim=1)
    padding = row_positions[:, -1:].expand(-1, rows - tokens * heads)
    row_positions = torch.cat((row_positions, padding), dim=1)
    return RowBlocks(
        tokens=(starts + offsets).to(numerics.device),
        real=(torch.arange(tokens)[None] < lengths).to(numerics.device),
        rows=rows,
        steps=tuple(_steps(blocks, row_positions, numerics.device)),
    )


def _steps(blocks: list[_Block], positions: Tensor, device: torch.device) -> Iterable[PageStep]:
    lowest = positions[:, 0]
    for page in range(blocks[0].page_count):
        active = [block for block in blocks if block.page_count > page]
        ids = torch.tensor([block.segment.block_table[page] for block in active])
        keys = _range(page * BLOCK_SIZE, BLOCK_SIZE)
        masked = None
        if int(lowest[: len(active)].min()) < int(keys[-1]):
            masked = (keys > positions[: len(active), :, None]).to(device)
        yield PageStep(pages=ids.to(device), masked=masked)
