"""How much of prompts one micro-batch takes."""

from __future__ import annotations

from dataclasses import dataclass

from router_service.config import EngineConfig
from router_service.sequence import Sequence

_LEAST = 8
"""Rows of a chunk, however long its context: fewer would not be worth a pass over the weights."""


@dataclass(kw_only=True)
class PromptBudget:
    """What is left for the prompt chunks of one micro-batch.

    rows: prompt tokens.
    pairs: prompt tokens times the tokens before them; the last chunk may overdraw it by one
        chunk of the least size.
    """

    rows: int
    pairs: int

    @classmethod
    def of(cls, config: EngineConfig) -> PromptBudget:
        return cls(rows=config.prefill_chunk, pairs=config.attention_budget)

    @property
    def spent(self) -> bool:
        return self.rows <= 0 or self.pairs <= 0

    def chunk(self, seq: Sequence, *, others: bool) -> int:
        """Rows of the next chunk of `seq`, at least 1, which are taken off the budget.

        Args:
            others: younger prompts wait for their turn. They get half of the pairs, so that a
                short prompt does not wait for the end of a long one.
        """
        pairs = self.pairs // 2 if others else self.pairs
        affordable = max(_LEAST, pairs // max(1, seq.computed))
        length = min(seq.uncomputed, self.rows, affordable)
        self.rows -= length
        self.pairs -= length * seq.computed
        return length
