"""Clients of a fleet: of one of its routers, or of gateways before them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks.failover.clients import LEAST_TOKENS, TOKENS, Clients
from benchmarks.failover.ways import GrpcWay, HttpWay
from benchmarks.failover.wishes import CLIENTS, SEED, wishes
from tests.chaos.fleet import Fleet
from tests.chaos.gateways import Gateway


def clients_of(
    fleet: Fleet, *, different: int = CLIENTS, seed: int = SEED, router: int = 0
) -> Clients:
    """Of one router, by gRPC; all of them together have so many different wishes."""
    address = fleet.routers()[router]["address"]
    return Clients(partial(GrpcWay, address), wishes(different, seed))


def by_http(gateways: Sequence[Gateway], fleet: Fleet) -> Clients:
    """Of gateways; where there are several, what broke off is asked again of the next one."""

    def make() -> HttpWay:
        return HttpWay(
            url=lambda attempt: gateways[attempt % len(gateways)].url,
            model=fleet.blueprint.model_name,
            attempts=len(gateways),
        )

    # A key stands for one body: the answers to a wish are all of one length.
    return Clients(make, wishes(), least=TOKENS if len(gateways) > 1 else LEAST_TOKENS)
