"""Routed experts kept in INT4, for kernels that dequantise in registers.

What a step reads of an expert is a quarter of its bfloat16 weights and an eighth of float32,
and reading is what bounds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kimi_k2 import huge_pages
from kimi_k2.expert_size import LANES
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.int4 import dequantize

_WORD = 8
_SIGNS = -0x77777778
"""0x88888888 as int32: makes offset nibbles signed ones, and back."""
_LEAST_SCALE, _MOST_SCALE = 0x0080, 0x7500
"""As bits of bfloat16: the least normal one, and one whose multiples by 2^20 are finite."""


@dataclass(frozen=True, kw_only=True)
class PackedExperts:
    """INT4 weights of some experts of one layer, each in a slot.

    gate_up: int32 [slots, hidden // 8, 2 * width]; gate_proj's columns, then up_proj's. A word
        holds 8 weights that follow each other in the inner dimension, lowest nibble first, in
        two's complement.
    gate_up_scale: bfloat16 [slots, hidden // group, 2 * width].
    down: int32 [slots, width // 8, hidden].
    down_scale: bfloat16 [slots, width // group, hidden].
    """

    gate_up: Tensor
    gate_up_scale: Tensor
    down: Tensor
    down_scale: Tensor

    @classmethod
    def empty(cls, slots: int, width: int, hidden: int, group: int) -> PackedExperts:
        return cls(
            gate_up=huge_pages.zeros((slots, hidden // _WORD, 2 * width), torch.int32),
            gate_up_scale=torch.zeros(slots, hidden // group, 2 * width, dtype=torch.bfloat16),
            down=huge_pages.zeros((slots, width // _WORD, hidden), torch.int32),
            down_scale=torch.zeros(slots, width // group, hidden, dtype=torch.bfloat16),
        )

    def put(self, slots: slice, projection: str, packed: Tensor, scale: Tensor) -> None:
        """Takes stored tensors [slots, rows, columns // 8] and [slots, rows, columns // group]
        of gate_proj, up_proj or down_proj."""
        words, scales = (self.gate_up, self.gate_up_scale)
        width = self.gate_up.shape[2] // 2
        columns = slice(0, width) if projection == "gate_proj" else slice(width, None)
        if projection == "down_proj":
            words, scales, columns = self.down, self.down_scale, slice(None)
        torch.bitwise_xor(packed.transpose(1, 2), _SIGNS, out=words[slots, :, columns])
        scales[slots, :, columns] = scale.transpose(1, 2)

    @property
    def exact(self) -> bool:
        """Whether kernels make every weight from its scale exactly; almost every checkpoint's."""
        return all(
            bool(((bits == 0) | ((bits >= _LEAST_SCALE) & (bits <= _MOST_SCALE))).all())
            for scale in (self.gate_up_scale, self.down_scale)
            for bits in (scale.view(torch.int16),)
        )

    def take(self, slots: Tensor) -> PackedExperts:
        """Some of the experts in another order."""
        return self._each(lambda tensor, _: tensor.index_select(0, slots), self)

    def join(self, other: PackedExperts) -> PackedExperts:
        """These experts and then the others."""
        return self._each(lambda a, b: torch.cat((a, b)), other)

    def plain(self) -> ExpertWeights:
        """The effective weights, bfloat16, as compiled kernels want them."""

        def weights(packed: Tensor, scale: Tensor) -> Tensor:
            words = torch.bitwise_xor(packed, _SIGNS).transpose(1, 2).contiguous()
            return dequantize(words, scale.transpose(1, 2).contiguous())

        return ExpertWeights(
            gate_up=weights(self.gate_up, self.gate_up_scale),
            down=weights(self.down, self.down_scale),
        ).as_column_major()

    @property
    def nbytes(self) -> int:
        scales = self.gate_up_scale.nbytes + self.down_scale.nbytes
        return self.gate_up.nbytes + self.down.nbytes + scales

    @property
    def slots(self) -> int:
        return self.down.shape[0]

    @property
    def width(self) -> int:
        return self.gate_up.shape[2] // 2

    def table(self, up: int | None, down: int | None) -> NDArray[np.int64] | None:
        """See `ExpertWeights.table`."""
        inner, width = self.gate_up.shape[1] * _WORD, self.down.shape[1] * _WORD
        if up is None or down is None or not self.fits(inner, width, self.group, up, down):
            return None
        return self._table

    @staticmethod
    def fits(hidden: int, width: int, group: int, up: int, down: int) -> bool:
        """Whether kernels take experts of these sizes with these segments."""
        whole = (up >= hidden or up % group == 0) and (down >= width or down % group == 0)
        vectors = hidden % LANES == 0 and 2 * width % LANES == 0
        return whole and vectors and hidden % group == 0 and width % group == 0

    @property
    def group(self) -> int:
        """Weights that share a scale."""
        return self.gate_up.shape[1] * _WORD // self.gate_up_scale.shape[1]

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        tensors = (self.gate_up, self.gate_up_scale, self.down, self.down_scale)
        places = [tensor.data_ptr() for tensor in tensors]
        return np.array([0, *places, self.slots, self.width, self.group])

    def _each(
        self, change: Callable[[Tensor, Tensor], Tensor], other: PackedExperts
    ) -> PackedExperts:
        return PackedExperts(
            gate_up=change(self.gate_up, other.gate_up),
            gate_up_scale=change(self.gate_up_scale, other.gate_up_scale),
            down=change(self.down, other.down),
            down_scale=change(self.down_scale, other.down_scale),
        )
