"""The rows of one dispatch, from their split over workers to their combination."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kimi_k2.combine import combine
from kimi_k2.experts import RoutedRows
from wire.errors import OrreryError

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

_NO_PLACE = -1


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Part:
    """What one worker is asked for.

    worker: its index in the table that the choice was made by.
    rows: [r] rows of the dispatch, ascending.
    wanted: bool [r, top_k], which of a row's experts.
    counts: int64 [r], how many of them.
    whole: bool [r], rows of which all experts are wanted: they come back combined.
    tried: ids of workers that already failed these rows.
    """

    worker: int
    rows: Rows
    wanted: Mask
    counts: Rows
    whole: Mask
    tried: frozenset[str]

    def asked(self) -> Part:
        """Without the rows that nothing is wanted of."""
        hit = self.counts > 0
        if hit.all():
            return self
        return Part(
            worker=self.worker,
            rows=self.rows[hit],
            wanted=self.wanted[hit],
            counts=self.counts[hit],
            whole=self.whole[hit],
            tried=self.tried,
        )

    @property
    def answer_sizes(self) -> Rows:
        """int64 [r], rows of the answer that belong to each row."""
        return np.where(self.whole, 1, self.counts)


Choose = Callable[[NDArray[np.int64], frozenset[str]], NDArray[np.int16]]
Send = Callable[["RowsInFlight", Part], None]


class RowsInFlight:
    """Splits rows into parts, collects the answers, splits again what has failed.

    Rows whose experts all sit with one worker come back combined. The expert rows of the others
    are gathered by (row, expert), and combined here once the last one is there.

    Result tensors are made outside inference mode, since answers are written to them by whoever
    runs the event loop, in whatever mode that is.
    """

    def __init__(
        self,
        x: Tensor,
        experts: NDArray[np.int64],
        weights: NDArray[np.float32],
        layer_number: int,
        choose: Choose,
        send: Send,
    ) -> None:
        """Nothing is sent before `start`.

        Args:
            x: [T, hidden] on CPU.
            experts, weights: [T, top_k], ascending experts in each row.
            choose: owners for [rows, top_k] experts, avoiding workers by id; -1 for none.
            send: encodes a part and hands it over; one of `replied` and `failed` follows.
        """
        self.x = x
        self.experts = experts
        self.weights = weights
        self.top_k = experts.shape[1]
        self.layer_number = layer_number
        self._choose = choose
        self._send = send
        self._open = 0
        self._place: Rows = np.full(len(experts), _NO_PLACE, np.int64)
        self._spanning: list[Rows] = []
        self._pairs: Tensor | None = None
        self._missing: dict[int, tuple[int, int]] = {}
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with torch.inference_mode(False):
            self._out = torch.zeros(x.shape, dtype=x.dtype)

    def start(self, rows: Rows) -> None:
        """Splits and sends these rows; those without an owner are parked."""
        self._open += 1
        self._split(rows, np.ones((len(rows), self.top_k), np.bool_), frozenset())
        self._close_one()

    def replied(self, part: Part, answer: Tensor) -> None:
        """Takes a part's answer: for each row one combined row, or one row an expert."""
        with torch.inference_mode(False):
            self._store(part, answer)
        self._close_one()

    def failed(self, part: Part, worker_id: str, error: OrreryError) -> None:
        """Asks other workers for a part's rows at once; parks those that have no other owner."""
        self._split(part.rows, part.wanted, part.tried | {worker_id})
        self._close_one()

    async def result(self, device: torch.device) -> RoutedRows:
        """Waits for the last part; the combined rows on `device`."""
        await self._done
        with torch.inference_mode(False):
            rows = self._combined(device)
        if not self._missing:
            return RoutedRows(rows=rows)
        parked = torch.zeros(len(self.experts), dtype=torch.bool)
        parked[list(self._missing)] = True
        return RoutedRows(rows=rows, parked=parked, missing=self._missing)

    def _split(self, rows: Rows, wanted: Mask, tried: frozenset[str]) -> None:
        owners = self._choose(self.experts[rows], tried)
        without = (owners < 0) & wanted
        homeless = without.any(axis=1)
        if homeless.any():
            self._park(rows[homeless], without[homeless])
            rows, wanted, owners = rows[~homeless], wanted[~homeless], owners[~homeless]
            if not len(rows):
                return
        whole = wanted.all(axis=1) & (owners == owners[:, :1]).all(axis=1)
        self._make_places(rows[~whole])
        for worker in np.flatnonzero(np.bincount(owners[wanted])).tolist():
            mine = (owners == worker) & wanted
            counts = mine.sum(axis=1)
            part = Part(
                worker=worker, rows=rows, wanted=mine, counts=counts, whole=whole, tried=tried
            )
            self._open += 1
            self._send(self, part.asked())

    def _park(self, rows: Rows, without: Mask) -> None:
        first = without.argmax(axis=1)
        experts = self.experts[rows, first].tolist()
        for row, expert in zip(rows.tolist(), experts, strict=True):
            self._missing.setdefault(row, (self.layer_number, expert))

    def _make_places(self, rows: Rows) -> None:
        """Room for the expert rows of rows that will be combined here."""
        new = rows[self._place[rows] == _NO_PLACE]
        if not len(new):
            return
        taken = sum(len(group) for group in self._spanning)
        self._place[new] = np.arange(taken, taken + len(new))
        self._spanning.append(new)
        with torch.inference_mode(False):
            room = torch.zeros(len(new) * self.top_k, self.x.shape[1], dtype=self.x.dtype)
            self._pairs = room if self._pairs is None else torch.cat((self._pairs, room))

    def _store(self, part: Part, answer: Tensor) -> None:
        if part.whole.all():
            self._out.index_copy_(0, torch.from_numpy(part.rows), answer)
            return
        if part.whole.any():
            is_whole = torch.from_numpy(np.repeat(part.whole, part.answer_sizes))
            rows = torch.from_numpy(part.rows[part.whole])
            self._out.index_copy_(0, rows, answer[is_whole])
            answer = answer[~is_whole]
        wanted = part.wanted & ~part.whole[:, None]
        first = self._place[part.rows] * self.top_k
        places = (first[:, None] + np.arange(self.top_k))[wanted]
        if self._pairs is not None:
            self._pairs.index_copy_(0, torch.from_numpy(places), answer)

    def _combined(self, device: torch.device) -> Tensor:
        out = self._out.to(device)
        if self._pairs is None:
            return out
        rows = np.concatenate(self._spanning)
        weights = torch.from_numpy(self.weights[rows]).to(device)
        pairs = self._pairs.to(device).view(len(rows), self.top_k, -1)
        return out.index_copy_(0, torch.from_numpy(rows).to(device), combine(pairs, weights))

    def _close_one(self) -> None:
        self._open -= 1
        if self._open == 0 and not self._done.done():
            self._done.set_result(None)
