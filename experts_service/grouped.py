"""One grouped feed-forward for the requests of several routers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experts_service.store import HeldLayer
from kimi_k2.combine import combine
from kimi_k2.expert_ffn import ExpertWeights, expert_ffn
from kimi_k2.numerics import Numerics
from wire.frames import DispatchRequest

FeedForward = Callable[[Tensor, Tensor, ExpertWeights, Numerics], Tensor]


def compute(
    requests: Sequence[DispatchRequest],
    held: HeldLayer,
    numerics: Numerics,
    feed_forward: FeedForward = expert_ffn,
) -> list[Tensor]:
    """The answer rows of each request, on CPU.

    Args:
        requests: of one layer; every expert that they name is held, and their tensors have the
            model's width and the dtype of `numerics`.

    Returns: for each request [N, hidden]; a row that is to be combined gives one row, any other
        one row an expert.
    """
    device = numerics.device
    x = torch.cat([request.x for request in requests]) if len(requests) > 1 else requests[0].x
    counts = np.concatenate([request.counts for request in requests]).astype(np.int64)
    experts = np.concatenate([request.experts for request in requests])
    weights = np.concatenate([request.weights for request in requests])
    combined = np.concatenate([request.combine for request in requests])

    row_of_pair = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device)
    slots = torch.from_numpy(held.slots[experts]).to(device)
    pairs = x.to(device).index_select(0, row_of_pair)
    rows = feed_forward(pairs, slots, held.weights, numerics)
    rows = _combine_marked(rows, counts, combined, torch.from_numpy(weights).to(device))

    sizes = np.where(combined, 1, counts)
    bounds = np.cumsum([len(request.counts) for request in requests])[:-1]
    per_request = [int(part.sum()) for part in np.split(sizes, bounds)]
    return list(torch.split(rows.to("cpu"), per_request))


def _combine_marked(
    rows: Tensor, counts: NDArray[np.int64], combined: NDArray[np.bool_], weights: Tensor
) -> Tensor:
    """Replaces the expert rows of each marked row by their combination, keeping the order."""
    if not combined.any():
        return rows
    top_k = int(counts[combined][0])
    if combined.all():
        return combine(rows.view(-1, top_k, rows.shape[1]), weights.view(-1, top_k))
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
