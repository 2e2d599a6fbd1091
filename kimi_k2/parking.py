"""Rows that cannot go on because an expert has no live copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kimi_k2.batch import Segment
from kimi_k2.experts import RoutedRows


class Parking:
    """Keeps account of a forward pass's parked rows.

    A parked row takes all later rows of its segment with it, since they attend to it.
    """

    def __init__(self, segments: Sequence[Segment], padded_rows: int) -> None:
        self._segments = segments
        self._active = torch.zeros(padded_rows, dtype=torch.bool)
        for segment in segments:
            self._active[segment.start : segment.start + segment.length] = True
        self._missing: dict[int, tuple[int, int]] = {}

    @property
    def active(self) -> Tensor | None:
        """bool [padded rows] on CPU: neither padding nor parked. None if that is every row."""
        return None if bool(self._active.all()) else self._active.clone()

    @property
    def all_parked(self) -> bool:
        return not bool(self._active.any())

    @property
    def missing(self) -> dict[int, tuple[int, int]]:
        """Row to the first (layer, logical expert) that it missed."""
        return dict(self._missing)

    def settle(self, routed: RoutedRows) -> Tensor:
        """Takes note of rows that were parked; returns the routed rows, zeros for those.

        Zeros keep what the pass still computes for them finite, cache included.
        """
        if routed.parked is None:
            return routed.rows
        for row in routed.parked.nonzero()[:, 0].tolist():
            self._missing.setdefault(row, routed.missing[row])
            segment = next(s for s in self._segments if s.start <= row < s.start + s.length)
            self._active[row : segment.start + segment.length] = False
        parked = routed.parked.to(routed.rows.device)
        return torch.where(parked[:, None], routed.rows.new_zeros(()), routed.rows)
