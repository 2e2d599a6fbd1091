"""Weights of routed experts as matrices of floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kimi_k2 import huge_pages
from kimi_k2.arithmetic import column_major


@dataclass(frozen=True, kw_only=True)
class ExpertWeights:
    """Weights of some experts of one layer, each in a slot.

    gate_up: [slots, 2 * moe_intermediate_size, hidden]; gate_proj's rows, then up_proj's.
    down: [slots, hidden, moe_intermediate_size].

    In the activation dtype, or in bfloat16 where the values are (half the bytes; compiled kernels
    widen them). In memory the last two dimensions may be exchanged (`column_major`): those kernels
    want the outputs of one input next to each other.
    """

    gate_up: Tensor
    down: Tensor

    @classmethod
    def empty(
        cls,
        slots: int,
        width: int,
        hidden: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        column_major: bool = False,
    ) -> ExpertWeights:
        def make(rows: int, columns: int) -> Tensor:
            if column_major:
                return huge_pages.zeros((slots, columns, rows), dtype).transpose(1, 2)
            return torch.empty(slots, rows, columns, dtype=dtype, device=device)

        return cls(gate_up=make(2 * width, hidden), down=make(hidden, width))

    @property
    def column_major(self) -> bool:
        return (
            self.gate_up.transpose(1, 2).is_contiguous()
            and self.down.transpose(1, 2).is_contiguous()
        )

    def as_column_major(self) -> ExpertWeights:
        return ExpertWeights(gate_up=column_major(self.gate_up), down=column_major(self.down))

    def cast(self, dtype: torch.dtype) -> ExpertWeights:
        """In another dtype; nothing is copied if that is the dtype they have."""
        return self._change(lambda weight, _: weight.to(dtype), self)

    def take(self, slots: Tensor) -> ExpertWeights:
        """Some of the experts in another order, laid out in memory as these are."""
        return self._change(lambda weight, _: weight.index_select(0, slots), self)

    def join(self, other: ExpertWeights) -> ExpertWeights:
        """These experts and then the others, laid out in memory as these are."""
        return self._change(lambda a, b: torch.cat((a, b)), other)

    def plain(self) -> ExpertWeights:
        return self

    @property
    def nbytes(self) -> int:
        return self.gate_up.nbytes + self.down.nbytes

    @property
    def slots(self) -> int:
        return self.down.shape[0]

    @property
    def width(self) -> int:
        return self.down.shape[2]

    def table(self, up: int | None, down: int | None) -> NDArray[np.int64] | None:
        """What `ffn_kernels.route` has to know of them; None if it cannot read them.

        Args:
            up, down: the segments of the two products, see `Numerics.segments`.
        """
        return None if up is None or down is None else self._table

    @cached_property
    def _table(self) -> NDArray[np.int64] | None:
        dtype = self.down.dtype
        on_cpu = self.down.device.type == "cpu"
        if not on_cpu or dtype not in (torch.float32, torch.bfloat16) or not self.column_major:
            return None
        places = [self.gate_up.data_ptr(), 0, self.down.data_ptr(), 0]
        return np.array([dtype.itemsize, *places, self.slots, self.width, 1])

    def _change(
        self, change: Callable[[Tensor, Tensor], Tensor], other: ExpertWeights
    ) -> ExpertWeights:
        def changed(a: Tensor, b: Tensor) -> Tensor:
            if self.column_major:
                return change(a.transpose(1, 2), b.transpose(1, 2)).transpose(1, 2)
            return change(a, b)

        return ExpertWeights(
            gate_up=changed(self.gate_up, other.gate_up), down=changed(self.down, other.down)
        )
