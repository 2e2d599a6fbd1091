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
        self._padded_rows = padded_rows
        self._missing: dict[int, tuple[int, int]] = {}
        rows = sum(segment.length for segment in segments)
        # A pass of which no row is parked, nearly every one, has no use for a mask.
        self._mask = None if rows == padded_rows else self._all_active()

    @property
    def active(self) -> Tensor | None:
        """bool [padded rows] on CPU: neither padding nor parked. None if that is every row."""
        return None if self._mask is None else self._mask.clone()

    @property
    def all_parked(self) -> bool:
        return self._mask is not None and not bool(self._mask.any())

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
        if self._mask is None:
            self._mask = self._all_active()
        for row in routed.parked.nonzero()[:, 0].tolist():
            self._missing.setdefault(row, routed.missing[row])
            segment = next(s for s in self._segments if s.start <= row < s.start + s.length)
            self._mask[row : segment.start + segment.length] = False
        parked = routed.parked.to(routed.rows.device)
        return torch.where(parked[:, None], routed.rows.new_zeros(()), routed.rows)

    def _all_active(self) -> Tensor:
        mask = torch.zeros(self._padded_rows, dtype=torch.bool)
        for segment in self._segments:
            mask[segment.start : segment.start + segment.length] = True
        return mask
