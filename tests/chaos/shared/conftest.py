"""One fleet for all scenarios here, in either form: every expert twice, on several nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.failover.clients import Answers, Clients
from benchmarks.failover.wishes import SEED
from tests.chaos.asking import clients_of
from tests.chaos.fleet import Fleet, fleet_on
from tests.chaos.form import Form
from tests.chaos.killer import Killer
from tests.chaos.nodes import ray_nodes


@pytest.fixture(scope="package")
def shared(form: Form, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    config = {
        "experts": {"workers": form.workers, "redundant_experts": "twice", "spares": 1},
        "router": {
            "replicas": 2,
            "park_timeout_s": form.bound_s,
            "dispatch": {"canary_s": form.canary_s},
        },
    }
    folder = tmp_path_factory.mktemp("twice")
    with ray_nodes(form.nodes) as nodes, fleet_on(nodes, folder, config) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared: Fleet) -> Fleet:
    """As `shared`, and at rest."""
    shared.rest()
    return shared


@pytest.fixture
def killer(fleet: Fleet) -> Iterator[Killer]:
    with Killer(fleet, SEED) as killer:
        yield killer


@pytest.fixture
def clients(fleet: Fleet) -> Clients:
    return clients_of(fleet)


@pytest.fixture(scope="package")
def answers(shared: Fleet) -> Answers:
    """What a router says while nothing happens."""
    shared.rest()
    return clients_of(shared).undisturbed()
