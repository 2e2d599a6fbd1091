"""The config's ports and nodes as members and Ray are told them."""

from __future__ import annotations

import pytest

from cluster.blueprint import draw
from cluster.config_reader import read_config
from cluster.errors import ConfigError
from cluster.fleet import Member, Role
from cluster.members.setup import (
    actor_options,
    at_most_one_a_node,
    bundle,
    router_config,
    worker_config,
)

FIXED = {
    "router": {"port": 7100, "metrics_port": 7101, "nodes": "orrery=router"},
    "experts": {"port": 7000, "metrics_port": 7001, "nodes": "zone=a", "threads": 2},
    "ray": {"address": "auto"},
}
MEMBER = Member(member_id="expert-0", role=Role.EXPERT)


def test_members_take_free_ports_on_any_node_by_default() -> None:
    blueprint = draw(read_config({}))
    router = router_config(blueprint, "router-0")
    worker = worker_config(blueprint, MEMBER)
    listening = {router.listen, router.metrics_listen, worker.listen, worker.metrics_listen}
    assert listening == {"127.0.0.1:0"}
    for role in Role:
        assert actor_options(role, blueprint.config) == {"num_cpus": 1}
    assert not at_most_one_a_node(blueprint.config.experts)


def test_fixed_ports_and_nodes() -> None:
    blueprint = draw(read_config(FIXED))
    router = router_config(blueprint, "router-0")
    worker = worker_config(blueprint, MEMBER)
    assert (router.listen, router.metrics_listen) == ("0.0.0.0:7100", "0.0.0.0:7101")
    assert (worker.listen, worker.metrics_listen) == ("0.0.0.0:7000", "0.0.0.0:7001")
    options = actor_options(Role.ROUTER, blueprint.config)
    assert options["label_selector"] == {"orrery": "router"}
    # An expert worker's place is its bundle's.
    assert "label_selector" not in actor_options(Role.EXPERT, blueprint.config)
    assert bundle(blueprint.config) == {"CPU": 2.0}
    assert at_most_one_a_node(blueprint.config.experts)


@pytest.mark.parametrize("nodes", ["router", "=x", "a=", "a=b=c", "a b=c"])
def test_nodes_are_a_label(nodes: str) -> None:
    with pytest.raises(ConfigError, match=r"a label of Ray's nodes"):
        read_config({"experts": {"nodes": nodes}})
