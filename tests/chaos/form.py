"""How long the suite takes: a short form for every `make test`, a full one for `make chaos`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Form:
    """full: minutes long, and held to the bars of time, which a busy machine cannot be.

    nodes, workers, gateways: of the shared fleet. kills_s: of killing replicated workers. kills: at
    least so many. losses: of workers without replicas. bound_s: how long a request may wait for
    lost experts. trouble_s: how long a worker is in trouble. breath_s: of calm before and after.
    canary_s: as in the config.
    """

    full: bool
    nodes: int
    workers: int
    gateways: int
    kills_s: float
    kills: int
    losses: int
    bound_s: float
    trouble_s: float
    breath_s: float
    canary_s: float


SHORT = Form(
    full=False,
    nodes=2,
    workers=3,
    gateways=1,
    kills_s=0.0,
    kills=2,
    losses=1,
    bound_s=5.0,
    trouble_s=2.0,
    breath_s=1.0,
    canary_s=0.5,
)
FULL = Form(
    full=True,
    nodes=3,
    workers=4,
    gateways=2,
    kills_s=300.0,
    kills=30,
    losses=6,
    bound_s=30.0,
    trouble_s=20.0,
    breath_s=5.0,
    canary_s=1.0,
)
