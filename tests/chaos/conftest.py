from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from kimi_k2.config import ModelConfig
from tests.chaos.clients import Answers, Clients
from tests.chaos.fleet import Fleet, fleet_on
from tests.chaos.form import FULL, SHORT, Form
from tests.chaos.killer import Killer
from tests.chaos.nodes import Nodes, ray_nodes
from tests.chaos.ways import GrpcWay
from tests.chaos.wishes import Wish, wishes
from tests.support.checkpoints import NANO_K2

SEED = 20
NODES = 3
WORKERS = 4


@pytest.fixture(scope="session")
def form(pytestconfig: pytest.Config) -> Form:
    return FULL if pytestconfig.getoption("--chaos") == "full" else SHORT


@pytest.fixture(scope="package")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(NODES) as made:
        yield made


@pytest.fixture(scope="package")
def shared(nodes: Nodes, form: Form, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Every expert twice, on three nodes."""
    config = {
        "experts": {"workers": WORKERS, "redundant_experts": "twice", "spares": 1},
        "router": {"replicas": 2, "park_timeout_s": form.bound_s},
    }
    with fleet_on(nodes, tmp_path_factory.mktemp("twice"), config) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared: Fleet) -> Fleet:
    """As `shared`, and at rest."""
    shared.rest()
    return shared


@pytest.fixture
def killer(fleet: Fleet) -> Iterator[Killer]:
    made = Killer(fleet, SEED)
    yield made
    made.close()


@pytest.fixture
def clients(fleet: Fleet) -> Clients:
    """Sixteen of a router."""
    return clients_of(fleet)


@pytest.fixture(scope="package")
def answers(shared: Fleet) -> Answers:
    """What the router says while nothing happens."""
    return clients_of(shared).undisturbed()


def clients_of(fleet: Fleet) -> Clients:
    """Sixteen of the first router."""
    return Clients(partial(GrpcWay, fleet.routers()[0]["address"]), asked_for(), SEED)


def asked_for() -> Sequence[Wish]:
    """The same in every scenario."""
    return wishes(SEED, ModelConfig.from_dir(NANO_K2).vocab_size)
