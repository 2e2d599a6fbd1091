"""Arithmetic whose result for a row depends on that row alone.

Library kernels choose their code by shape: a matrix product may sum in another order when it
has another number of rows, and an elementwise function may use another code for the last few
elements. `Numerics` holds the shapes that were proven not to do so on this machine
(`kimi_k2.numerics`), and every product and every transcendental function of the model goes
through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

_ELEMENTS_PER_CALL = 16384
"""Below the size from which torch splits an elementwise call among threads: the places where
it splits depend on the thread count and need not fall between vectors."""

_VECTOR = 64
"""Elements of the longest unrolled vector step (bfloat16, 512 bits); what is left over after
the last step goes through scalar code with other bits."""


def column_major(weight: Tensor) -> Tensor:
    """The same [..., out, in] matrix with the outputs of one input next to each other in memory,
    as compiled kernels want it."""
    return weight.transpose(-1, -2).contiguous().transpose(-1, -2)


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Proven row shapes, and the operations that keep to them.

    row_quantum: matrix products get a multiple of this many rows.
    max_rows: matrix products get at most this many rows; a multiple of `row_quantum`.
    blocks_at_once: attention takes exactly this many blocks of rows together, fillers
        included; None where any number gives the same bits.
    fingerprint: hash of outputs on canary rows; equal between processes that compute the
        same bits.
    dtype: the activation dtype.
    segments: (inner size, columns) of a product to the length of the runs of inner elements that
        it sums one after another, for products whose compiled kernels (`kimi_k2.fma_tiles`)
        were proven to give the library's bits; the others take the library.
    """

    row_quantum: int
    max_rows: int
    fingerprint: str
    dtype: torch.dtype
    device: torch.device
    blocks_at_once: int | None = None
    segments: Mapping[tuple[int, int], int] = field(default_factory=dict)

    def padded(self, rows: int) -> int:
        """The least multiple of the quantum that is at least `rows`."""
        return -(-rows // self.row_quantum) * self.row_quantum

    def pad_rows(self, x: Tensor) -> Tensor:
        """Appends zero rows to [rows, ...] up to a multiple of the quantum."""
        missing = self.padded(x.shape[0]) - x.shape[0]
        if missing == 0:
            return x
        return torch.cat((x, x.new_zeros(missing, *x.shape[1:])))

    def arrange(self, weight: Tensor) -> Tensor:
        """Lays a matrix [..., out, in] out in memory as the products here are fastest."""
        return column_major(weight) if self.segments else weight

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [rows, in] times weight [out, in] transposed: [rows, out], any number of rows.

        Fastest where the weight's columns are contiguous in memory (`column_major`).
        """
        rows = x.shape[0]
        segment = self.segments.get((weight.shape[1], weight.shape[0]))
        if segment is not None and weight.t().is_contiguous():
            return self._per_head(x[:, None], weight.t()[None], segment)[:, 0]
        padded = self.pad_rows(x).contiguous()
        if padded.shape[0] <= self.max_rows:
            return F.linear(padded, weight)[:rows]
        parts = torch.split(padded, self.max_rows)
        return torch.cat([F.linear(part, weight) for part in parts])[:rows]

    def batched(self, a: Tensor, b: Tensor) -> Tensor:
        """[n, rows, in] times [n, in, out]; `rows` must be a multiple of the quantum."""
        assert a.shape[1] % self.row_quantum == 0, "the caller pads"
        if a.shape[1] <= self.max_rows:
            return torch.bmm(a, b)
        parts = torch.split(a, self.max_rows, dim=1)
        return torch.cat([torch.bmm(part, b) for part in parts], dim=1)

    def per_head(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [rows, heads, in] times weight [heads, in, out]: [rows, heads, out].

        `rows` must be a multiple of the quantum.
        """
        segment = self.segments.get((weight.shape[1], weight.shape[2]))
        if segment is not None and weight.is_contiguous():
            return self._per_head(x, weight, segment)
        return self.batched(x.transpose(0, 1).contiguous(), weight).transpose(0, 1)

    def _per_head(self, x: Tensor, weight: Tensor, segment: int) -> Tensor:
        from kimi_k2.fma_tiles import head_products

        rows, heads, inner = x.shape
        if x.stride(2) != 1:
            x = x.contiguous()
        out = x.new_empty(rows, heads, weight.shape[2])
        head_products(
            x.data_ptr(),
            x.stride(0),
            x.stride(1),
            rows,
            weight.data_ptr(),
            weight.shape[2],
            heads,
            out.data_ptr(),
            inner,
            segment,
        )
        return out

    def exp2(self, x: Tensor) -> Tensor:
        """Not exp: that one's algorithm is not public, and a compiled kernel has to repeat it."""
        return self._elementwise(torch.exp2, x)

    def sigmoid(self, x: Tensor) -> Tensor:
        return self._elementwise(torch.sigmoid, x)

    def silu(self, x: Tensor) -> Tensor:
        return self._elementwise(F.silu, x)

    def cos_sin(self, angles: Tensor) -> tuple[Tensor, Tensor]:
        return self._elementwise(torch.cos, angles), self._elementwise(torch.sin, angles)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMSNorm of x [rows, width], in float32 and rounded to the dtype of `x`."""
        wide = x.float().contiguous()
        variance = self._row_means(wide * wide)
        return weight * (wide * torch.rsqrt(variance + eps)).to(x.dtype)

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """[..., 2 * width], gate half first, to silu(gate) * up: [..., width]."""
        gate, up = gate_up.chunk(2, dim=-1)
        return self.silu(gate) * up

    def _row_means(self, x: Tensor) -> Tensor:
        """[rows, width] to [rows, 1], in blocks: a device shares out a sum by the row count."""
        parts = torch.split(self.pad_rows(x), self.max_rows)
        means = [part.mean(-1, keepdim=True) for part in parts]
        return (means[0] if len(means) == 1 else torch.cat(means))[: x.shape[0]]

    def _elementwise(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if x.is_cuda:
            return function(x)
        flat = x.contiguous().view(-1)
        tail = -flat.numel() % _VECTOR
        if tail:
            flat = torch.cat((flat, flat.new_zeros(tail)))
        if flat.numel() <= _ELEMENTS_PER_CALL:
            out = function(flat)
        else:
            out = torch.cat([function(part) for part in torch.split(flat, _ELEMENTS_PER_CALL)])
        return out[: x.numel()].view(x.shape)
