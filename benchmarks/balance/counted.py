"""What workers say that they have computed, and how even that is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from monitoring.balancedness import balancedness

_COUNTER = "orrery_worker_expert_tokens_total"

Counts = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True, kw_only=True)
class Evenness:
    """Mean over maximum of what workers computed within some seconds, in expert-token pairs.

    fleet: over all layers together. layers: layer to that of the layer; a step takes as long as
        the busiest worker of each. pairs: in all.
    """

    fleet: float
    layers: Mapping[int, float]
    pairs: float

    @property
    def worst(self) -> float:
        return min(self.layers.values())


async def counts(http: httpx.AsyncClient, status: Mapping[str, Any]) -> Counts:
    """Worker to layer to pairs computed since its start."""
    workers = [p for p in status["processes"] if p["role"] == "expert" and not p["spare"]]
    pages = await asyncio.gather(
        *(http.get(f"http://{p['metrics_address']}/metrics") for p in workers)
    )
    return {
        worker["id"]: {
            int(sample.labels["layer"]): sample.value
            for family in text_string_to_metric_families(page.raise_for_status().text)
            for sample in family.samples
            if sample.name == _COUNTER
        }
        for worker, page in zip(workers, pages, strict=True)
    }


def evenness(before: Counts, after: Counts) -> Evenness:
    """Of what was computed between two looks at the same workers.

    >>> seen = evenness({"a": {1: 0}, "b": {1: 0}}, {"a": {1: 30}, "b": {1: 10}})
    >>> seen.fleet, seen.worst
    (0.6666666666666666, 0.6666666666666666)
    """
    layers = sorted({layer for worker in after.values() for layer in worker})
    done = {
        layer: [after[w].get(layer, 0.0) - before[w].get(layer, 0.0) for w in after]
        for layer in layers
    }
    together = [sum(column) for column in zip(*done.values(), strict=True)]
    return Evenness(
        fleet=balancedness(together),
        layers={layer: balancedness(loads) for layer, loads in done.items()},
        pairs=sum(together),
    )
