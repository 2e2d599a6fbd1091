"""Who reaches which port, by the network policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.manifests import OVERLAYS, Group, groups, of_kind

PARTS = ("controller", "router", "expert")
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    expressions = selector.get("matchExpressions", [])
    assert all(item["operator"] == "In" for item in expressions)
    return all(labels.get(item["key"]) in item["values"] for item in expressions)


def rules(overlay: str, part: str) -> Iterator[dict[str, Any]]:
    """The ingress rules that hold for a kind of pod; without any, all would be open."""
    found = [
        policy["spec"]
        for policy in of_kind(overlay, "NetworkPolicy")
        if matches(policy["spec"]["podSelector"], {"orrery": part})
    ]
    assert found
    for spec in found:
        assert spec["policyTypes"] == ["Ingress"]
        yield from spec["ingress"]


def reaches(overlay: str, group: Group, port: int, labels: dict[str, str], *, home: bool) -> bool:
    """Whether a pod of these labels may connect. home: it is in orrery's namespace."""
    for rule in rules(overlay, group.part):
        peers = rule.get("from")
        allowed = peers is None or any(
            (home or "namespaceSelector" in peer) and matches(peer.get("podSelector", {}), labels)
            for peer in peers
        )
        if allowed and any(covers(group, item, port) for item in rule["ports"]):
            return True
    return False


def covers(group: Group, item: dict[str, Any], port: int) -> bool:
    first = item["port"]
    if isinstance(first, str):
        return group.ports.get(first) == port
    return int(first) <= port <= int(item.get("endPort", first))


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_experts_hear_routers_and_the_controller_alone(overlay: str) -> None:
    for group in groups(overlay).values():
        if group.part == "expert":
            for part, allowed in (("router", True), ("controller", True), ("expert", False)):
                got = reaches(overlay, group, group.ports["grpc"], {"orrery": part}, home=True)
                assert got is allowed, part
            for home in (True, False):
                assert not reaches(overlay, group, group.ports["grpc"], {}, home=home)
            spoofed = reaches(overlay, group, group.ports["grpc"], {"orrery": "router"}, home=False)
            assert not spoofed


def test_clients_reach_http_and_nothing_else_of_ours(overlay: str) -> None:
    open_to_all = {
        (group.part, name)
        for group in groups(overlay).values()
        for name, port in group.ports.items()
        if reaches(overlay, group, port, {}, home=False)
    }
    metrics = {(part, "orrery-metrics") for part in PARTS} | {("router", "gateway-metrics")}
    assert open_to_all == {("router", "serve"), *metrics}


def test_what_must_connect_may(overlay: str) -> None:
    of_part = {group.part: group for group in groups(overlay).values()}
    head, router = of_part["controller"], of_part["router"]
    for part in PARTS:
        assert reaches(overlay, head, head.ports["gcs-server"], {"orrery": part}, home=True)
        for group in of_part.values():
            for name, value in group.spec["rayStartParams"].items():
                if name.endswith("-port") and name != "metrics-export-port":
                    assert reaches(overlay, group, int(value), {"orrery": part}, home=True), name
    for part in ("router", "controller"):
        assert reaches(overlay, router, router.ports["grpc"], {"orrery": part}, home=True)
        # Ray Serve's default range for the HTTP servers of replicas.
        assert reaches(overlay, router, 30000, {"orrery": part}, home=True)
    assert not reaches(overlay, router, router.ports["grpc"], {"orrery": "expert"}, home=True)
    assert reaches(overlay, head, head.ports["dashboard"], OPERATOR, home=False)
    assert not reaches(overlay, head, head.ports["dashboard"], {}, home=True)


def test_rays_ports_are_none_of_ours(overlay: str) -> None:
    """Else a rule for Ray would open an expert worker's port, too."""
    for group in groups(overlay).values():
        parameters = group.spec["rayStartParams"]
        first, last = int(parameters["min-worker-port"]), int(parameters["max-worker-port"])
        rays = {int(value) for name, value in parameters.items() if name.endswith("-port")}
        assert len(rays) == len([name for name in parameters if name.endswith("-port")])
        ours = set(group.ports.values())
        assert not rays & ours
        assert not [port for port in ours if first <= port <= last]
