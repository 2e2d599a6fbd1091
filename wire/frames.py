"""The frames of a dispatch stream: requests, replies and typed errors.

`wire.codec` turns them into messages and back. Tensors of a decoded frame are views of the
received message, and belong to whoever received it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wire.placement import Epoch


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class DispatchRequest:
    """Rows of one layer for the experts of one worker.

    request_id: unique on the stream, at least 1.
    epoch: of the placement that the router went by.
    layer: the checkpoint's layer number.
    x: [R, hidden] on CPU, float32 or bfloat16.
    counts: u8 [R], how many of the row's experts are asked of this worker; at least 1 each.
    combine: bool [R]; true where those are all of the row's experts, so that the worker applies
        the combine rule and answers with one row.
    experts: u16 [P], ascending logical ids within a row, row after row; P is the sum of counts.
    weights: f32 [P], in the order of `experts`.
    """

    request_id: int
    epoch: Epoch
    layer: int
    x: Tensor
    counts: NDArray[np.uint8]
    combine: NDArray[np.bool_]
    experts: NDArray[np.uint16]
    weights: NDArray[np.float32]

    @property
    def answer_rows(self) -> int:
        """One for each row to combine, one an expert for any other."""
        if self.combine.all():
            return len(self.counts)
        return int(np.where(self.combine, 1, self.counts).sum(dtype=np.int64))


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class DispatchReply:
    """The answer to one request.

    rows: [N, hidden] on CPU in the request's dtype; for each row of the request, in order, one
        combined row or one row an expert.
    epoch: the highest one that the worker has seen.
    """

    request_id: int
    epoch: Epoch
    layer: int
    rows: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorReply:
    """Why a request has no answer.

    request_id: 0 when the frame was too broken to have one.
    code: a value of `wire.errors.ErrorCode`.
    expert: the logical expert that the error is about.
    """

    request_id: int
    code: str
    message: str
    expert: int | None = None
