"""One grouped feed-forward for the requests of several routers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from experts_service.store import HeldLayer
from kimi_k2.combine import combine
from kimi_k2.expert_ffn import expert_ffn
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.numerics import Numerics
from kimi_k2.routed_rows import compiled_rows
from wire.frames import DispatchRequest

FeedForward = Callable[[Tensor, Tensor, ExpertWeights, Numerics], Tensor]


def compute(
    requests: Sequence[DispatchRequest],
    held: HeldLayer,
    numerics: Numerics,
    feed_forward: FeedForward = expert_ffn,
    out: Tensor | None = None,
) -> list[Tensor]:
    """The answer rows of each request, on CPU.

    Args:
        requests: of one layer; every expert that they name is held, and their tensors have the
            model's width and the dtype of `numerics`.
        out: [sum of N, hidden] on CPU, to be filled instead of memory of its own: the answers
            of the requests, one after another.

    Returns: for each request [N, hidden]; a row that is to be combined gives one row, any other
        one row an expert.
    """
    request = requests[0] if len(requests) == 1 else _joined(requests)
    rows = _compiled(request, held, numerics, out) if feed_forward is expert_ffn else None
    if rows is None:
        rows = _rows(request, held, numerics, feed_forward)
        rows = rows if out is None else out.copy_(rows)
    if len(requests) == 1:
        return [rows]
    return list(torch.split(rows, [_answer_rows(request) for request in requests]))


def _compiled(
    request: DispatchRequest, held: HeldLayer, numerics: Numerics, out: Tensor | None
) -> Tensor | None:
    """The answer rows of a request by one kernel; None where it was not proven."""
    # Copies, since the arrays are views of a message, which a kernel would be compiled for anew.
    return compiled_rows(
        request.x,
        request.counts.astype(np.int64),
        held.slots[request.experts],
        request.combine.copy(),
        request.weights.copy(),
        held.weights,
        numerics,
        out,
    )


def _rows(
    request: DispatchRequest, held: HeldLayer, numerics: Numerics, feed_forward: FeedForward
) -> Tensor:
    """The answer rows of a request, on CPU."""
    device = numerics.device
    x = request.x.to(device)
    slots = torch.from_numpy(held.slots[request.experts]).to(device)
    if len(request.experts) > len(request.counts):
        counts = request.counts.astype(np.int64)
        row_of_pair = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device)
        x = x.index_select(0, row_of_pair)
    rows = feed_forward(x, slots, held.weights.plain(), numerics)
    return _combine_marked(rows, request).to("cpu")


def _joined(requests: Sequence[DispatchRequest]) -> DispatchRequest:
    """All of them as one, which keeps the first one's id."""
    return replace(
        requests[0],
        x=torch.cat([request.x for request in requests]),
        counts=np.concatenate([request.counts for request in requests]),
        experts=np.concatenate([request.experts for request in requests]),
        weights=np.concatenate([request.weights for request in requests]),
        combine=np.concatenate([request.combine for request in requests]),
    )


def _answer_rows(request: DispatchRequest) -> int:
    return int(np.where(request.combine, 1, request.counts).sum())


def _combine_marked(rows: Tensor, request: DispatchRequest) -> Tensor:
    """Replaces the expert rows of each marked row by their combination, keeping the order."""
    combined = request.combine
    marked_rows = np.count_nonzero(combined)
    if marked_rows == 0:
        return rows
    # A copy, since torch does not take arrays that are views of a message.
    weights = torch.from_numpy(request.weights.copy()).to(rows.device)
    if marked_rows == len(combined):
        top_k = int(request.counts[0])
        return combine(rows.view(-1, top_k, rows.shape[1]), weights.view(-1, top_k))
    counts = request.counts.astype(np.int64)
    top_k = int(counts[combined][0])
    marked_pairs = np.repeat(combined, counts)
    marked = torch.from_numpy(np.flatnonzero(marked_pairs)).to(rows.device)
    single = torch.from_numpy(np.flatnonzero(~marked_pairs)).to(rows.device)
    whole = combine(
        rows.index_select(0, marked).view(-1, top_k, rows.shape[1]),
        weights.index_select(0, marked).view(-1, top_k),
    )
    is_whole = np.repeat(combined, np.where(combined, 1, counts))
    out = rows.new_empty(len(is_whole), rows.shape[1])
    out[torch.from_numpy(np.flatnonzero(is_whole)).to(rows.device)] = whole
    out[torch.from_numpy(np.flatnonzero(~is_whole)).to(rows.device)] = rows.index_select(0, single)
    return out
