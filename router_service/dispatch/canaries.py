"""Rows whose right answer is known, for workers whose answers may be wrong."""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from router_service.dispatch.known_answers import KnownAnswers
from wire.codec import request_message
from wire.placement import Epoch

_log = logging.getLogger(__name__)


class Verdict(enum.StrEnum):
    """What has come of a canary."""

    RIGHT = "right"
    WRONG = "wrong"
    LATE = "late"
    REFUSED = "refused"


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


class Canaries:
    """The canaries of one worker: one held layer after another, one of its experts after another.

    An expert whose answer was wrong comes first until it is right.
    """

    def __init__(self, known: KnownAnswers | None, layers: Sequence[int], seed: int) -> None:
        """
        Args:
            known: None: the worker gets none, and is believed.
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
        if place is None or self._known is None:
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
        """RIGHT if the bits are the same, else WRONG."""
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
