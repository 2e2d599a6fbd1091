"""What one layer of one micro-batch asks of each worker, expected over the gate's choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.planner.layout import Load, Share
from cluster.planner.shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Between the router and one share of a layer's experts; expected numbers, not whole.

    messages: sent, and answered. sent, received: rows.
    experts: of the share that some row wants, whose weights the worker goes through.
    """

    messages: float
    sent: float
    received: float
    experts: float


def traffic(
    shape: ModelShape,
    layer: int,
    shares: Sequence[Share],
    rows: float,
    load: Load | None = None,
) -> tuple[Traffic, ...]:
    """One entry a share, for a micro-batch of `rows` rows.

    Experts are assumed to be hit independently, in proportion to `load` (equally without it). A
    row goes once to each worker that holds one of its experts. It comes back once, combined,
    from a worker that holds them all; otherwise once for each expert.

    With `k` experts a row, of which a share holds the part `p`, and `hit` the chance of an expert
    to be a row's: wanted = 1 - (1 - p)^k, messages = 1 - (1 - wanted)^rows, sent = rows * wanted,
    received = rows * (k p - (k - 1) p^k), experts = sum of 1 - (1 - hit)^rows.
    """
    hits = _hits(shape, load[layer] if load else None)
    k = shape.top_k
    found = []
    for share in shares:
        if isinstance(hits, float):
            part = len(share.experts) / shape.experts
            experts = len(share.experts) * _some(hits, rows)
        else:
            part = min(1.0, sum(hits[expert] for expert in share.experts) / k)
            experts = sum(_some(hits[expert], rows) for expert in share.experts)
        wanted = _some(part, k)
        found.append(
            Traffic(
                messages=_some(wanted, rows),
                sent=rows * wanted,
                received=rows * (k * part - (k - 1) * part**k),
                experts=experts,
            )
        )
    return tuple(found)


def _hits(shape: ModelShape, load: Sequence[float] | None) -> Sequence[float] | float:
    """The chance of each expert to be among a row's top-k; one number when all are equal."""
    if load is None or not sum(load):
        return shape.top_k / shape.experts
    scale = shape.top_k / sum(load)
    return [min(1.0, tokens * scale) for tokens in load]


def _some(chance: float, tries: float) -> float:
    """The chance that at least one of `tries` comes true."""
    return float(1.0 - (1.0 - chance) ** tries)
