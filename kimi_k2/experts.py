"""The seam between the model and its routed experts.

`kimi_k2.local_experts.LocalExperts` computes them in this process, the router's
`RemoteExperts` asks expert workers. Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RoutedRows:
    """The combined output of the routed experts for one layer of one micro-batch.

    rows: [T, hidden] in the activation dtype, after the combine rule; arbitrary finite values
        where `parked` is true.
    parked: bool [T] on CPU, true for rows with an expert that has no live copy; None when
        there is no such row.
    missing: row to the (layer, logical expert) that has no live copy, for each parked row.
    """

    rows: Tensor
    parked: Tensor | None = None
    missing: Mapping[int, tuple[int, int]] = field(default_factory=dict)


class Experts(Protocol):
    """Computes the routed experts of any layer."""

    async def dispatch(
        self, layer: int, x: Tensor, topk_idx: Tensor, topk_weights: Tensor, active: Tensor | None
    ) -> Awaitable[RoutedRows]:
        """Starts the routed experts on the rows of `x`; await the result for the rows.

        Two awaits, so that the caller computes the shared expert while workers compute.

        Args:
            layer: the checkpoint's layer number.
            x: [T, hidden], activation dtype.
            topk_idx: [T, top_k] int64, ascending logical expert ids in each row.
            topk_weights: [T, top_k] float32, final weights in the order of `topk_idx`.
            active: bool [T] on CPU; rows that are false are neither computed nor sent
                (padding, rows already parked). None: all rows.
        """
        ...

    def is_live(self, layer: int, expert: int) -> bool:
        """Whether some copy of the logical expert can be asked now; parked rows wait for it."""
        ...
