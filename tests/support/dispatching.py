"""Comparing experts behind gRPC with experts in this process."""

from __future__ import annotations

import torch

from router_service.dispatch import RemoteExperts
from tests.support.expert_workers import ExpertModel


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
