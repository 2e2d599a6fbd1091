"""What one forward pass works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Consecutive tokens of one sequence inside a micro-batch.

    start: the segment's first row in the micro-batch.
    length: number of rows, at least 1.
    position: position in its sequence of the first row, i.e. tokens already in the KV cache.
    block_table: KV blocks that cover positions 0 to position + length - 1, in order.
    """

    start: int
    length: int
    position: int
    block_table: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Rows of several sequences, laid out one segment after another.

    token_ids: [T] int64 on the model's device; T is the sum of the segments' lengths (the model
        pads to its row quantum itself).
    segments: in row order, without gaps; no two of the same sequence.
    logit_rows: the rows whose logits are wanted, ascending.
    """

    token_ids: Tensor
    segments: tuple[Segment, ...]
    logit_rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ForwardResult:
    """What a forward pass gives back.

    logits: [len(logit_rows), vocab] float32.
    missing: row to the (layer, logical expert) without a live copy, for each row that could not be
        computed. Later rows of the same segment are void too, and so is what this pass wrote for
        them to the KV cache: the engine replays from the first missing row.
    broken: rows with a result that is not finite. What the pass wrote to the KV cache for the
        row's segment may be no better: nobody may have those blocks before they are wiped.
    """

    logits: Tensor
    missing: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    broken: frozenset[int] = frozenset()
