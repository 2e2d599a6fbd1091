"""The rows of one dispatch, from their split over workers to their combination."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kimi_k2.combine import combine
from kimi_k2.experts import RoutedRows
from router_service.dispatch.live_table import Ids, Owners
from wire.errors import OrreryError


@dataclass(kw_only=True, eq=False, slots=True)
class Part:
    """What one worker is asked for.

    worker: its index in the table that the choice was made by.
    tried: ids of workers that already failed these rows.
    rows: of the dispatch, ascending.
    counts: how many of each row's experts are asked for.
    whole: for each row, whether those are all: then it comes back combined.
    pairs: the experts asked for, as row * top_k + place, ascending.
    """

    worker: int
    tried: frozenset[str]
    rows: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    pairs: list[int] | range = field(default_factory=list)

    def add(self, row: int, pair: int, whole: bool) -> None:
        """Rows, and pairs within a row, have to come ascending."""
        if self.rows and self.rows[-1] == row:
            self.counts[-1] += 1
        else:
            self.rows.append(row)
            self.counts.append(1)
            self.whole.append(whole)
        assert isinstance(self.pairs, list)
        self.pairs.append(pair)

    def pairs_by_row(self) -> Iterator[tuple[int, Sequence[int]]]:
        start = 0
        for row, count in zip(self.rows, self.counts, strict=True):
            yield row, self.pairs[start : start + count]
            start += count

    @property
    def answer_rows(self) -> int:
        """Of the answer's tensor."""
        return len(self.rows) if all(self.whole) else sum(self.answer_sizes())

    def answer_sizes(self) -> list[int]:
        """Rows of the answer that belong to each row."""
        pairs = zip(self.whole, self.counts, strict=True)
        return [1 if whole else count for whole, count in pairs]


Choose = Callable[[Ids, frozenset[str]], int | Owners]
Send = Callable[["RowsInFlight", Part], None]


class RowsInFlight:
    """Splits rows into parts, collects the answers, splits again what has failed.

    Rows whose experts all sit with one worker come back combined. The expert rows of the others
    are put in order and combined here once the last one is there.

    The split is done on lists: the rows of a step are few, and a numpy call on few elements
    takes longer than a loop over them.

    done: the combined rows; an exception only where something was not foreseen.
    """

    def __init__(
        self,
        x: Tensor,
        experts: Ids,
        weights: NDArray[np.float32],
        layer_number: int,
        device: torch.device,
        choose: Choose,
        send: Send,
    ) -> None:
        """Nothing is sent before `start`.

        Args:
            x: [T, hidden] on CPU.
            experts, weights: [T, top_k], ascending experts in each row.
            device: of the result.
            choose: owners for [rows, top_k] experts, avoiding workers by id, -1 for none; or one
                owner of them all.
            send: encodes a part and hands it over; one of `replied` and `failed` follows.
        """
        self.x = x
        self.experts = experts
        self.weights = weights
        self.top_k = experts.shape[1]
        self.layer_number = layer_number
        self.done: asyncio.Future[RoutedRows] = asyncio.get_running_loop().create_future()
        self._device = device
        self._choose = choose
        self._send = send
        self._open = 0
        self._combined: list[tuple[Sequence[int], Tensor]] = []
        self._single: list[tuple[Sequence[int], Tensor]] = []
        self._missing: dict[int, tuple[int, int]] = {}

    def start(self, rows: Sequence[int], broken: Sequence[int] = ()) -> None:
        """Splits and sends `rows`, ascending; those without an owner are parked.

        broken: rows that are not finite, or whose weights are not. No worker could answer them
            with anything else; they come back as NaN, and only their own requests suffer.
        """
        if broken:
            nan = self.x.new_full((len(broken), self.x.shape[1]), torch.nan)
            self._combined.append((broken, nan))
        self._open += 1
        self._split(rows, None, frozenset())
        self._close_one()

    def sections(self, part: Part) -> tuple[Tensor, Ids, NDArray[np.float32]]:
        """Rows, experts and weights of a part, as a message wants them."""
        x = self.x
        if len(part.pairs) == self.experts.size:
            return x, self.experts, self.weights
        if len(part.rows) != len(x):
            x = x.index_select(0, torch.tensor(part.rows))
        return x, self.experts.take(part.pairs), self.weights.take(part.pairs)

    def replied(self, part: Part, answer: Tensor) -> None:
        """Takes a part's answer: for each row one combined row, or one row an expert."""
        if not any(part.whole):
            self._single.append((part.pairs, answer))
        elif all(part.whole):
            self._combined.append((part.rows, answer))
        else:
            self._take_mixed(part, answer)
        self._close_one()

    def failed(self, part: Part, worker_id: str, error: OrreryError) -> None:
        """Asks other workers for a part's rows at once; parks those that have no other owner."""
        try:
            self._split(part.rows, part.pairs_by_row(), part.tried | {worker_id})
        except Exception as failure:  # noqa: BLE001
            # Whoever waits for the rows has to hear of it; the link is not at fault.
            if not self.done.done():
                self.done.set_exception(failure)
        self._close_one()

    def _split(
        self,
        rows: Sequence[int],
        pairs_by_row: Iterable[tuple[int, Sequence[int]]] | None,
        tried: frozenset[str],
    ) -> None:
        """`pairs_by_row`: what is asked for; None: all experts of all the rows."""
        if not rows:
            return
        k = self.top_k
        experts = self.experts if len(rows) == len(self.experts) else self.experts[rows]
        chosen = self._choose(experts, tried)
        if isinstance(chosen, int):
            owners_of = [[chosen] * k] * len(rows)
            if pairs_by_row is None and len(rows) == len(self.experts):
                self._send_everything(chosen, tried)
                return
        else:
            owners_of = chosen.tolist()
        if pairs_by_row is None:
            pairs_by_row = [(row, range(row * k, row * k + k)) for row in rows]
        parts: dict[int, Part] = {}
        for (row, pairs), owners in zip(pairs_by_row, owners_of, strict=True):
            if len(pairs) < k:
                owners = [owners[pair - row * k] for pair in pairs]
            if min(owners) < 0:
                self._park(row, pairs[owners.index(min(owners))])
                continue
            whole = len(pairs) == k and owners.count(owners[0]) == k
            for pair, owner in zip(pairs, owners, strict=True):
                if owner not in parts:
                    parts[owner] = Part(worker=owner, tried=tried)
                parts[owner].add(row, pair, whole)
        for owner in sorted(parts):
            self._open += 1
            self._send(self, parts[owner])

    def _send_everything(self, worker: int, tried: frozenset[str]) -> None:
        """All experts of all rows to one worker, without a look at each of them."""
        rows, k = self.experts.shape
        self._open += 1
        part = Part(
            worker=worker,
            tried=tried,
            rows=list(range(rows)),
            counts=[k] * rows,
            whole=[True] * rows,
            pairs=range(rows * k),
        )
        self._send(self, part)

    def _park(self, row: int, pair: int) -> None:
        expert = int(self.experts[row, pair - row * self.top_k])
        self._missing.setdefault(row, (self.layer_number, expert))

    def _take_mixed(self, part: Part, answer: Tensor) -> None:
        of_whole = torch.from_numpy(np.repeat(part.whole, part.answer_sizes()))
        rows = [row for row, whole in zip(part.rows, part.whole, strict=True) if whole]
        flags = np.repeat(part.whole, part.counts).tolist()
        pairs = [pair for pair, whole in zip(part.pairs, flags, strict=True) if not whole]
        self._combined.append((rows, answer[of_whole]))
        self._single.append((pairs, answer[~of_whole]))

    def _finish(self) -> None:
        try:
            # Where one worker has answered for all rows, its answer is the result.
            whole = self._combined[0] if len(self._combined) == 1 else None
            if whole is not None and len(whole[0]) == len(self.x):
                rows = whole[1].to(self._device)
            else:
                rows = self._rows()
            if rows.is_inference():
                with torch.inference_mode(False):
                    rows = rows.clone()
        except Exception as failure:  # noqa: BLE001
            self.done.set_exception(failure)
            return
        if not self._missing:
            self.done.set_result(RoutedRows(rows=rows))
            return
        parked = torch.zeros(len(self.experts), dtype=torch.bool)
        parked[list(self._missing)] = True
        self.done.set_result(RoutedRows(rows=rows, parked=parked, missing=self._missing))

    def _rows(self) -> Tensor:
        """[T, hidden]; rows that were not asked for, or are parked, may be zero."""
        device = self._device
        parts = [*self._combined]
        if self._single:
            rows, values = self._combine_here(device)
            if len(rows) == len(self.x):
                return values
            parts.append((rows, values))
        out = torch.zeros(self.x.shape, dtype=self.x.dtype, device=device)
        for done, answer in parts:
            out.index_copy_(
                0, torch.tensor(done, dtype=torch.int64, device=device), answer.to(device)
            )
        return out

    def _combine_here(self, device: torch.device) -> tuple[list[int], Tensor]:
        """The rows of which single expert rows came, but not the parked ones; and their values."""
        k = self.top_k
        pairs = np.array([pair for part, _ in self._single for pair in part], np.int64)
        order = pairs.argsort()
        if self._missing:
            # Some expert rows of a parked row may have come, and are of no use.
            order = order[~np.isin(pairs[order] // k, list(self._missing))]
        rows: list[int] = (pairs[order[::k]] // k).tolist()
        answers = torch.cat([answer for _, answer in self._single]).to(device)
        ordered = answers.index_select(0, torch.from_numpy(order).to(device))
        weights = self.weights if len(rows) == len(self.weights) else self.weights[rows]
        values = ordered.view(len(rows), k, self.x.shape[1])
        return rows, combine(values, torch.from_numpy(weights).to(device))

    def _close_one(self) -> None:
        self._open -= 1
        if self._open == 0 and not self.done.done():
            self._finish()
