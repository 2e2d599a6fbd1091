"""A real Prometheus scrapes a cluster under load; every panel and alert has something to show."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.server import Orrery
from tests.support.prometheus import MONITORING, Prometheus, program, prometheus

pytestmark = pytest.mark.ray

CLIENTS = 3
# Words of the queries that may find nothing, and why.
MAY_BE_EMPTY = {
    "orrery_router_dispatch_errors_total": "a series appears with the first failed dispatch",
    "orrery_worker_bad_frames_total": "a series appears with the first refused frame",
    "orrery_controller_restarts_total": "a series appears with the first restart of a role",
    "orrery_controller_change_seconds": "a series appears with the first change of the placement",
    "orrery_router_hedges_total": "a series appears with the first hedge; they are off by default",
    "absent(": "finds something only where the controller is gone",
}


def panel_queries() -> list[tuple[str, str]]:
    """Title and PromQL of every panel, from the JSON that people import."""
    found = []
    for file in sorted((MONITORING / "dashboards").glob("*.json")):
        board = json.loads(file.read_text(encoding="utf-8"))
        for panel in panels(board["panels"]):
            for target in panel["targets"]:
                found.append((f"{board['title']}, {panel['title']}", target["expr"]))
    return found


def panels(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        if item["type"] == "row":
            yield from panels(item.get("panels", []))
        else:
            yield item


def rule_queries() -> list[tuple[str, str]]:
    """Name and PromQL of every rule. A healthy cluster raises no alert, so that each comparison
    here says 0 or 1 where it would drop what is fine: its left side must find something."""
    found = []
    for file in sorted((MONITORING / "rules").glob("*.yaml")):
        for group in yaml.safe_load(file.read_text(encoding="utf-8")).get("groups", []):
            for rule in group["rules"]:
                if "alert" in rule:
                    expr, times = re.subn(r" (<|>|==) ", r" \1 bool ", rule["expr"])
                    assert times == 1 or rule["expr"].startswith("absent("), rule["expr"]
                    found.append((rule["alert"], expr))
                else:
                    found.append((rule["record"], rule["expr"]))
    return found


@pytest.fixture(scope="module")
def scraped(served: Orrery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, with some clients that talk to the cluster all the time."""
    program("prometheus")
    status = served.status()
    controller = next(p["address"] for p in status["processes"] if p["role"] == "controller")
    stop = threading.Event()
    clients = [threading.Thread(target=talk, args=(served, stop)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        with prometheus(tmp_path_factory.mktemp("prometheus"), f"http://{controller}/sd") as client:
            yield client
    finally:
        stop.set()
        for thread in clients:
            thread.join(60)


def talk(served: Orrery, stop: threading.Event) -> None:
    body = {
        "model": "nano-k2",
        "messages": [{"role": "user", "content": "What is a mountain?"}],
        "max_tokens": 24,
        "stream": True,
    }
    with httpx.Client(timeout=60, trust_env=False) as http:
        while not stop.is_set():
            http.post(f"{served.url}/v1/chat/completions", json=body).raise_for_status()


def test_every_process_is_scraped(scraped: Prometheus) -> None:
    def up() -> bool:
        targets = scraped.get("targets")["activeTargets"]
        roles = [target["labels"]["role"] for target in targets if target["health"] == "up"]
        return sorted(roles) == ["controller", *["expert"] * 5, "gateway", "router", "router"]

    scraped.wait("all targets are up", up, 30)


def test_every_panel_and_every_rule_finds_something(scraped: Prometheus) -> None:
    """One wait for all of them: rates need scrapes, rules need rates."""
    layer = scraped_layer(scraped)
    left = {
        (name, expr.replace("$__rate_interval", "30s").replace("$layer", layer))
        for name, expr in [*panel_queries(), *rule_queries()]
    }
    assert len(left) > 70

    def all_found() -> bool:
        left.difference_update([item for item in left if scraped.query(item[1])])
        return not [item for item in left if not excused(item[1])]

    try:
        scraped.wait("every query finds something", all_found, 40)
    except TimeoutError:
        assert not sorted(item for item in left if not excused(item[1]))
    assert all(excused(expr) for _, expr in left)


def scraped_layer(scraped: Prometheus) -> str:
    series = "orrery_router_expert_tokens_total"
    scraped.wait("the router is scraped", lambda: bool(scraped.query(series)), 30)
    return str(scraped.query(series)[0]["metric"]["layer"])


def excused(expr: str) -> bool:
    return any(word in expr for word in MAY_BE_EMPTY)


def test_no_rule_fails_and_no_alert_fires(scraped: Prometheus) -> None:
    for group in scraped.get("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", rule
            assert rule.get("state", "inactive") != "firing", rule


def test_the_layer_by_expert_matrix_has_every_expert(scraped: Prometheus, repository: Path) -> None:
    config = json.loads((repository / "models/nano-k2/config.json").read_text(encoding="utf-8"))
    experts = config["n_routed_experts"]
    layers = config["num_hidden_layers"] - config["first_k_dense_replace"]
    (matrix,) = [expr for name, expr in panel_queries() if name.endswith("Layer x expert")]
    found = scraped.query(matrix)
    assert len(found) == layers * experts
    by_layer: dict[str, float] = {}
    for sample in found:
        layer = sample["metric"]["layer"]
        by_layer[layer] = by_layer.get(layer, 0.0) + float(sample["value"][1])
    # Loads over their mean: they sum to the number of experts.
    assert by_layer == pytest.approx(dict.fromkeys(by_layer, float(experts)))
