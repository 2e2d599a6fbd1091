"""What one worker is asked for, of the rows of a dispatch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from router_service.dispatch.race import Attempt


@dataclass(kw_only=True, eq=False, slots=True)
class Part:
    """Goes into one message.

    worker: its index in the table that the choice was made by.
    tried: ids of workers that already failed these rows, or were late.
    rows: of the dispatch, ascending.
    counts: how many of each row's experts are asked for.
    whole: for each row, whether those are all: then it comes back combined.
    pairs: the experts asked for, as row * top_k + place, ascending.
    attempt: where several workers were asked for the same rows, whom this part belongs to.
    """

    worker: int
    tried: frozenset[str]
    rows: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    pairs: list[int] | range = field(default_factory=list)
    attempt: Attempt[Part, Tensor] | None = None

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
