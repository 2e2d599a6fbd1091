"""What workers have to answer to canaries."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor

from kimi_k2.canary import canary_answer, canary_rows
from kimi_k2.checkpoint import Checkpoint
from kimi_k2.numerics import Numerics

_MOST_KNOWN = 4096


class KnownAnswers:
    """Right answers, each computed once, in a thread; shared by all links.

    The router computes them itself, from the checkpoint: workers whose fingerprint equals its own
    have to give the same bits. To compare two owners with each other would not tell which of them
    is wrong, and says nothing where there is one.
    """

    def __init__(self, x: Tensor, compute: Callable[[int, int], Tensor]) -> None:
        """
        Args:
            x: [rows, hidden] on CPU, the canary rows.
            compute: the right answer, [rows, hidden] on CPU, for a layer's number and an expert.
        """
        self.x = x
        self._compute = compute
        self._known: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, layer: int, expert: int) -> Tensor:
        """May raise whatever reading the checkpoint does."""
        key = layer, expert
        async with self._one_at_a_time:
            right = self._known.get(key)
            if right is None:
                right = self._known[key] = await asyncio.to_thread(self._compute, layer, expert)
                if len(self._known) > _MOST_KNOWN:
                    self._known.popitem(last=False)
        return right


def known_answers(checkpoint: Checkpoint, numerics: Numerics) -> KnownAnswers:
    """Those of a checkpoint's experts."""
    x = canary_rows(checkpoint.config.hidden_size, numerics)
    return KnownAnswers(x, partial(canary_answer, checkpoint, x, numerics))
