"""One message to one worker, from its send to its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from wire.errors import OrreryError


@dataclass(kw_only=True, eq=False, slots=True)
class Call:
    """Ends in exactly one of its two callbacks.

    layer: as a table index.
    rows: of the answer's tensor.
    pairs: expert-token pairs that the worker computes for it.
    replied: takes the answer's tensor, [rows, hidden]; it must not be written to.
    failed: takes why there is no answer.
    """

    layer: int
    rows: int
    pairs: int
    replied: Callable[[Tensor], None]
    failed: Callable[[OrreryError], None]
    sent_at: float = 0.0
