"""Compiled feed-forward network of routed experts: no padding, no copies of weights."""

from __future__ import annotations

import numpy as np

from kimi_k2.fma_tiles import Floats, Indices, product
from kimi_k2.jit import compiled


@compiled
def expert_up(
    x: Floats,
    slots: Indices,
    weight: Floats,
    segment: int,
    order: Indices,
    ends: Indices,
    gate_up: Floats,
    gate: Floats,
) -> None:
    """Sorts rows by slot and sends each through its expert's first projection.

    Args:
        x: [P, hidden]. slots: [P]. weight: [slots, hidden, 2 * width].
        order, ends: int64 [P], [slots], out: rows by slot, and where each slot's rows end.
        gate_up, gate: [P, 2 * width], [P, width], out, in that order; `gate` is its first half.
    """
    experts, hidden, columns = weight.shape
    pairs = x.shape[0]
    counts = np.zeros(experts, np.int64)
    for pair in range(pairs):
        counts[slots[pair]] += 1
    end = 0
    for slot in range(experts):
        ends[slot] = end
        end += counts[slot]
    gathered = np.empty((pairs, hidden), np.float32)
    for pair in range(pairs):
        place = ends[slots[pair]]
        order[place] = pair
        ends[slots[pair]] = place + 1
        gathered[place] = x[pair]
    for slot in range(experts):
        rows = counts[slot]
        if rows == 0:
            continue
        first = ends[slot] - rows
        product(
            gathered[first:].ctypes.data,
            hidden,
            1,
            rows,
            weight[slot].ctypes.data,
            columns,
            columns,
            gate_up[first:].ctypes.data,
            columns,
            hidden,
            segment,
        )
    for place in range(pairs):
        gate[place] = gate_up[place, : columns // 2]


@compiled
def expert_down(
    activated: Floats,
    gate_up: Floats,
    weight: Floats,
    segment: int,
    order: Indices,
    ends: Indices,
    out: Floats,
) -> None:
    """Multiplies by the other half of `gate_up`, projects down, and puts rows where they came from.

    Args:
        activated: [P, width], of `gate`; overwritten. weight: [slots, width, hidden].
        out: [P, hidden].
    """
    experts, width, hidden = weight.shape
    for place in range(activated.shape[0]):
        for column in range(width):
            activated[place, column] *= gate_up[place, width + column]
    rows_out = np.empty(out.shape, np.float32)
    first = 0
    for slot in range(experts):
        rows = ends[slot] - first
        if rows > 0:
            product(
                activated[first:].ctypes.data,
                width,
                1,
                rows,
                weight[slot].ctypes.data,
                hidden,
                hidden,
                rows_out[first:].ctypes.data,
                hidden,
                width,
                segment,
            )
        first = ends[slot]
    for place in range(out.shape[0]):
        out[order[place]] = rows_out[place]
