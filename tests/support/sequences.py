"""Runs sequences through a model by hand: what the engine does, without the engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kimi_k2.batch import ForwardResult, MicroBatch, Segment
from kimi_k2.experts import Experts
from kimi_k2.latent_cache import BLOCK_SIZE, LatentCache
from kimi_k2.model import Model


class Runner:
    """One sequence that grows; several runners may share a cache through `blocks`."""

    def __init__(
        self,
        model: Model,
        experts: Experts,
        num_blocks: int = 64,
        cache: LatentCache | None = None,
        blocks: Sequence[int] | None = None,
    ) -> None:
        self.model = model
        self.experts = experts
        self.cache = cache if cache is not None else model.new_cache(num_blocks)
        self.blocks = tuple(range(self.cache.num_blocks)) if blocks is None else tuple(blocks)
        self.position = 0

    def segment(self, start: int, length: int) -> Segment:
        """The next `length` tokens as a segment; the block table ends where they end."""
        needed = -(-(self.position + length) // BLOCK_SIZE)
        return Segment(
            start=start,
            length=length,
            position=self.position,
            block_table=self.blocks[:needed],
        )

    async def extend(self, tokens: Tensor, all_logits: bool = False) -> Tensor:
        """Appends tokens; the logits of all of them or of the last, [rows, vocab]."""
        result = await run_together([(self, tokens)], all_logits=all_logits)
        return result.logits


async def run_together(
    parts: Sequence[tuple[Runner, Tensor]], all_logits: bool = False
) -> ForwardResult:
    """One micro-batch of several runners that share model, experts and cache.

    The logits are those of every row, or of each runner's last.
    """
    segments: list[Segment] = []
    wanted: list[int] = []
    row = 0
    for runner, tokens in parts:
        length = tokens.shape[0]
        segments.append(runner.segment(row, length))
        wanted += range(row, row + length) if all_logits else [row + length - 1]
        row += length
    first = parts[0][0]
    batch = MicroBatch(
        token_ids=torch.cat([tokens for _, tokens in parts]),
        segments=tuple(segments),
        logit_rows=tuple(wanted),
    )
    with torch.inference_mode():
        result = await first.model.forward(batch, first.cache, first.experts)
    for runner, tokens in parts:
        runner.position += tokens.shape[0]
    return result
