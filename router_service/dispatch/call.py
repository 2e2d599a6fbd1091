"""One message to one worker, from its send to its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from wire.errors import OrreryError


@dataclass(kw_only=True, eq=False, slots=True)
class Call:
    """Ends in exactly one of `replied` and `failed`.

    layer: as a table index.
    rows: of the answer's tensor.
    pairs: expert-token pairs that the worker computes for it.
    replied: takes the answer's tensor, [rows, hidden], which must not be written to; false if
        others had answered before.
    failed: takes why there is no answer; true if the rows are asked of others therefore, or parked.
    others: asks other owners for the same rows, this call's answer being welcome until theirs
        are there; false if there are none. Takes what is to be called if they are the first.
    size: see `LatencyWindow`.
    sent_at, due: by the performance counter; `due` is when somebody has to look at it.
    late: whether it has been found to be late.
    """

    layer: int
    rows: int
    pairs: int
    replied: Callable[[Tensor], bool]
    failed: Callable[[OrreryError], bool]
    others: Callable[[Callable[[], None]], bool]
    size: int = 0
    sent_at: float = 0.0
    due: float = 0.0
    late: bool = False
