"""Clients of a fleet: of one of its routers, or of gateways before them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.failover.clients import Clients
from benchmarks.failover.ways import GrpcWay, HttpWay
from benchmarks.failover.wishes import CLIENTS, wishes
from tests.chaos.fleet import Fleet
from tests.chaos.gateways import Gateway


def clients_of(fleet: Fleet, different: int = CLIENTS) -> Clients:
    """Of the first router, by gRPC; all of them together have so many different wishes."""
    return Clients(partial(GrpcWay, fleet.routers()[0]["address"]), wishes(different))


def by_http(gateways: Sequence[Gateway], fleet: Fleet, attempts: int = 1) -> Clients:
    """Sixteen of gateways; what broke off is asked again of the next one, so often in all."""

    def make() -> HttpWay:
        return HttpWay(
            url=lambda attempt: gateways[attempt % len(gateways)].url,
            model=fleet.blueprint.model_name,
            attempts=attempts,
        )

    return Clients(make, wishes())
