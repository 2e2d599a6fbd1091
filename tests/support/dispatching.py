"""Requests to expert workers, and comparing their answers with experts in this process."""

from __future__ import annotations

import numpy as np
import torch

from router_service.dispatch import RemoteExperts
from tests.support.expert_workers import ExpertModel
from wire.frames import DispatchRequest
from wire.placement import Epoch

TERM = 5


async def compare_rows(
    model: ExpertModel, remote: RemoteExperts, layer: int, number: int, seed: int = 0
) -> None:
    """Fails unless both give the same bits, with all rows active and with some."""
    x, idx, weights = model.rows(number, seed=seed + layer * 1000 + number)
    for active in (None, torch.arange(number) % 5 != 4):
        here = await (await model.local.dispatch(layer, x, idx, weights, active))
        there = await (await remote.dispatch(layer, x, idx, weights, active))
        assert there.parked is None
        assert not there.missing
        assert torch.equal(here.rows, there.rows)


def request(model: ExpertModel, request_id: int, rows: int = 3, seed: int = 0) -> DispatchRequest:
    """All of each row's experts, to be combined by the worker."""
    x, idx, weights = model.rows(rows, seed)
    return DispatchRequest(
        request_id=request_id,
        epoch=Epoch(term=TERM, counter=0),
        layer=model.config.moe_layers[0],
        x=x,
        counts=np.full(rows, idx.shape[1], np.uint8),
        combine=np.ones(rows, np.bool_),
        experts=idx.numpy().astype(np.uint16).ravel(),
        weights=weights.numpy().ravel(),
    )
