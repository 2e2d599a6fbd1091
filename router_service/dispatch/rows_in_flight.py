"""The rows of one dispatch, from their split over workers to their combination."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kimi_k2.combine import combine
from kimi_k2.experts import RoutedRows
from router_service.dispatch.live_table import Ids, Owners
from router_service.dispatch.part import Part
from router_service.dispatch.race import Race
from wire.errors import OrreryError

Choose = Callable[[Ids, frozenset[str]], int | Owners]
Send = Callable[["RowsInFlight", Part], None]
PairsByRow = Iterable[tuple[int, Sequence[int]]]


class RowsInFlight:
    """Splits rows into parts, collects the answers, splits again what has failed or is late.

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

    def replied(self, part: Part, answer: Tensor) -> bool:
        """Takes a part's answer: for each row one combined row, or one row an expert. False if
        others had answered for these rows before."""
        attempt = part.attempt
        if attempt is None:
            self._take(part, answer)
        else:
            won = attempt.race.answered(attempt, part, answer)
            if not won:
                return won is not None
            for taken, rows in won:
                self._take(taken, rows)
        self._close_one()
        return True

    def second(self, part: Part, worker_id: str, won: Callable[[], None]) -> bool:
        """Asks others for a part's rows too; the first to answer for all of them is believed.

        Does nothing and returns false unless every one has another owner: the step waits for the
        last of them anyway.

        Args:
            worker_id: whom the part was sent to.
            won: called if those asked now are the first.
        """
        race = part.attempt.race if part.attempt else Race(first=part, tried=part.tried)
        if race.decided:
            return False
        first, tried = race.first, race.tried | {worker_id}
        parts, homeless = self._parts(first.rows, first.pairs_by_row(), tried)
        if homeless:
            return False
        race.tried = tried
        if part.attempt is None:
            part.attempt = race.enter(1, _nothing)
        attempt = race.enter(len(parts), won)
        for further in parts:
            further.attempt = attempt
            self._send(self, further)
        return True

    def failed(self, part: Part, worker_id: str, error: OrreryError) -> bool:
        """Asks other workers for a part's rows at once and parks those that have no other owner;
        false if others were asked before, and that is enough."""
        attempt, tried = part.attempt, part.tried | {worker_id}
        if attempt is not None:
            if not attempt.race.lost(attempt, worker_id):
                return False
            part, tried = attempt.race.first, attempt.race.tried
        try:
            self._split(part.rows, part.pairs_by_row(), tried)
        except Exception as failure:  # noqa: BLE001
            # Whoever waits for the rows has to hear of it; the link is not at fault.
            if not self.done.done():
                self.done.set_exception(failure)
        self._close_one()
        return True

    def _take(self, part: Part, answer: Tensor) -> None:
        if not any(part.whole):
            self._single.append((part.pairs, answer))
        elif all(part.whole):
            self._combined.append((part.rows, answer))
        else:
            self._take_mixed(part, answer)

    def _split(
        self, rows: Sequence[int], pairs_by_row: PairsByRow | None, tried: frozenset[str]
    ) -> None:
        """Sends rows to their owners, and parks those without.

        pairs_by_row: what is asked for; None: all experts of all the rows.
        """
        parts, homeless = self._parts(rows, pairs_by_row, tried)
        for row, pair in homeless:
            self._park(row, pair)
        for part in parts:
            self._open += 1
            self._send(self, part)

    def _parts(
        self, rows: Sequence[int], pairs_by_row: PairsByRow | None, tried: frozenset[str]
    ) -> tuple[list[Part], list[tuple[int, int]]]:
        """What each worker is to be asked for; and the rows that cannot be asked for, each with a
        pair that has no owner."""
        homeless: list[tuple[int, int]] = []
        if not rows:
            return [], homeless
        k = self.top_k
        experts = self.experts if len(rows) == len(self.experts) else self.experts[rows]
        chosen = self._choose(experts, tried)
        if isinstance(chosen, int):
            owners_of = [[chosen] * k] * len(rows)
            if pairs_by_row is None and len(rows) == len(self.experts):
                return [self._everything(chosen, tried)], homeless
        else:
            owners_of = chosen.tolist()
        if pairs_by_row is None:
            pairs_by_row = [(row, range(row * k, row * k + k)) for row in rows]
        parts: dict[int, Part] = {}
        for (row, pairs), owners in zip(pairs_by_row, owners_of, strict=True):
            if len(pairs) < k:
                owners = [owners[pair - row * k] for pair in pairs]
            if min(owners) < 0:
                homeless.append((row, pairs[owners.index(min(owners))]))
                continue
            whole = len(pairs) == k and owners.count(owners[0]) == k
            for pair, owner in zip(pairs, owners, strict=True):
                if owner not in parts:
                    parts[owner] = Part(worker=owner, tried=tried)
                parts[owner].add(row, pair, whole)
        return [parts[owner] for owner in sorted(parts)], homeless

    def _everything(self, worker: int, tried: frozenset[str]) -> Part:
        """All experts of all rows of one worker, without a look at each of them."""
        rows, k = self.experts.shape
        return Part(
            worker=worker,
            tried=tried,
            rows=list(range(rows)),
            counts=[k] * rows,
            whole=[True] * rows,
            pairs=range(rows * k),
        )

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


def _nothing() -> None:
    """Whoever was asked first and wins has done nothing special."""
