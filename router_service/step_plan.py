"""What the scheduler decided for one micro-batch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import device

from kimi_k2.batch import MicroBatch, Segment
from kimi_k2.latent_cache import BLOCK_SIZE
from router_service.kv_cache import blocks_for
from router_service.sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class PlannedSegment:
    """`length` tokens of a sequence from position `position` on.

    start: first row in the micro-batch.
    samples: the last of its rows is the sequence's last token, so a token follows from it.
    """

    sequence: Sequence
    start: int
    position: int
    length: int
    samples: bool

    @property
    def last_row(self) -> int:
        return self.start + self.length - 1

    @property
    def row_numbers(self) -> range:
        return range(self.start, self.start + self.length)

    def intact(self, broken: Collection[int]) -> bool:
        """Whether none of its rows is among the broken ones."""
        return not broken or not any(row in broken for row in self.row_numbers)

    @property
    def written(self) -> list[int]:
        """The KV blocks that its rows are written to."""
        end = blocks_for(self.position + self.length)
        return self.sequence.block_table[self.position // BLOCK_SIZE : end]


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The segments of one micro-batch, in row order."""

    segments: tuple[PlannedSegment, ...]

    @property
    def rows(self) -> int:
        return self.segments[-1].last_row + 1

    def micro_batch(self, device: device) -> MicroBatch:
        """The plan in the model's words."""
        tokens: list[int] = []
        for planned in self.segments:
            end = planned.position + planned.length
            tokens += planned.sequence.tokens[planned.position : end]
        return MicroBatch(
            token_ids=torch.tensor(tokens, dtype=torch.int64, device=device),
            segments=tuple(_segment(planned) for planned in self.segments),
            logit_rows=tuple(planned.last_row for planned in self.segments if planned.samples),
        )


def _segment(planned: PlannedSegment) -> Segment:
    blocks = blocks_for(planned.position + planned.length)
    return Segment(
        start=planned.start,
        length=planned.length,
        position=planned.position,
        block_table=tuple(planned.sequence.block_table[:blocks]),
    )
