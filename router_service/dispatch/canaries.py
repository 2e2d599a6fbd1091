"""Rows whose right answer is known, for workers whose answers may be wrong."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wire.codec import request_message
from wire.placement import Epoch

_log = logging.getLogger(__name__)
_MOST_KNOWN = 4096


class Verdict(enum.StrEnum):
    """What has come of a canary; NONE: none was sent."""

    RIGHT = "right"
    WRONG = "wrong"
    LATE = "late"
    REFUSED = "refused"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class Canary:
    """Rows for one expert of one layer, and the answer.

    index: of the layer in the table. layer: its number in the checkpoint.
    x, right: [rows, hidden] on CPU.
    """

    index: int
    layer: int
    expert: int
    x: Tensor
    right: Tensor

    def __str__(self) -> str:
        return f"expert {self.expert} of layer {self.layer}"

    def message(self, request_id: int, term: int) -> bytes:
        """Asks for the expert's rows as they are, so that no combining hides anything."""
        rows = len(self.x)
        return request_message(
            request_id,
            Epoch(term=term, counter=0),
            self.layer,
            self.x,
            bytes([1]) * rows,
            bytes(rows),
            np.full(rows, self.expert, np.uint16),
            np.ones(rows, np.float32),
        )


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


class Canaries:
    """The canaries of one worker: one held layer after another, one of its experts after another.

    An expert whose answer was wrong comes first until it is right.
    """

    def __init__(self, known: KnownAnswers, layers: Sequence[int], seed: int) -> None:
        """
        Args:
            layers: the checkpoint's numbers of the table's layers.
            seed: workers with different ones get their canaries in different orders.
        """
        self._known = known
        self._layers = layers
        self._turn = seed
        self._accused: tuple[int, int] | None = None

    async def next(self, held: NDArray[np.bool_]) -> Canary | None:
        """One for what is held, bool [layers, experts]; None if nothing is, or no answer can be
        computed."""
        place = self._accused
        if place is None or not held[place]:
            place = self._place(held)
        if place is None:
            return None
        index, expert = place
        layer = self._layers[index]
        try:
            right = await self._known.answer(layer, expert)
        except Exception:  # noqa: BLE001
            # Such as a checkpoint that cannot be read any more: no reason to lose the worker.
            _log.exception("no canary for expert %d of layer %d", expert, layer)
            return None
        return Canary(index=index, layer=layer, expert=expert, x=self._known.x, right=right)

    def judge(self, canary: Canary, rows: Tensor) -> Verdict:
        """Whether the bits are the same."""
        equal = torch.equal(rows.view(torch.uint8), canary.right.view(torch.uint8))
        place = (canary.index, canary.expert)
        if not equal:
            self._accused = place
        elif self._accused == place:
            self._accused = None
        return Verdict.RIGHT if equal else Verdict.WRONG

    def _place(self, held: NDArray[np.bool_]) -> tuple[int, int] | None:
        layers = np.flatnonzero(held.any(axis=1))
        if not len(layers):
            return None
        turn, self._turn = self._turn, self._turn + 1
        index = int(layers[turn % len(layers)])
        experts = np.flatnonzero(held[index])
        return index, int(experts[turn // len(layers) % len(experts)])
