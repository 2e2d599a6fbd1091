from __future__ import annotations

import doctest
import json

import cluster.cli.table
import cluster.members.setup
import cluster.views
from cluster.cli.table import process_table
from cluster.fleet import Report, new_fleet
from cluster.gateways import Gateways
from cluster.reconcile import advance
from cluster.rules import Rules
from cluster.signals import Died, Launched, Seen, Tick
from cluster.views import Process, placement_view, status_view, targets_view

OWNERS = {1: (("expert-0",), ("expert-0",), ("expert-1",), ("expert-0",))}
CONTROLLER = Process(
    process_id="controller",
    role="controller",
    node="n0",
    pid=1,
    address="h:1",
    metrics_address="h:1",
    state="ready",
)


def test_examples_in_the_docstrings() -> None:
    for module in (cluster.views, cluster.cli.table, cluster.members.setup):
        assert doctest.testmod(module).failed == 0


def test_pages_of_a_fleet_that_lost_a_worker() -> None:
    rules = Rules(misses=3, start_timeout_s=60)
    fleet = new_fleet(OWNERS, ["expert-0", "expert-1"], ["router-0"], term=2)
    report = Report(state="ready", fingerprint="f", load={"tokens": 5})
    events = [Tick()]
    for port, member in enumerate(fleet.members, start=10):
        address = f"h:{port}"
        events.append(
            Launched(member_id=member, address=address, metrics_address=address, node="n", pid=port)
        )
    events += [Seen(member_id="expert-0", report=report), Seen(member_id="expert-1", report=report)]
    events.append(Died(member_id="expert-1", error="gone"))
    for event in events:
        fleet, _ = advance(fleet, event, 0.0, rules)

    placement = placement_view(fleet)
    assert placement["epoch"] == {"term": 2, "counter": 2}
    assert placement["workers"]["expert-0"]["experts"] == {"1": "0-1,3"}
    assert placement["without_owner"] == {"1": "2"}

    status = json.loads(json.dumps(status_view(fleet, [CONTROLLER])))
    assert status["state"] == "degraded"
    rows = {row["id"]: row for row in status["processes"]}
    assert list(rows) == ["controller", "expert-0", "expert-1", "router-0"]
    assert rows["expert-0"]["experts"] == 3
    assert rows["expert-0"]["load"] == {"tokens": 5}
    assert rows["expert-1"]["state"] == "pending"
    assert rows["expert-1"]["error"] == "gone"
    table = process_table(status)
    assert "3 experts of layers 1" in table
    assert "restarted 1x, gone" in table

    targets = targets_view(fleet, [CONTROLLER])
    assert targets[0] == {
        "targets": ["h:1"],
        "labels": {"role": "controller", "id": "controller", "node": "n0"},
    }
    assert {target["labels"]["id"] for target in targets} == set(rows)
    assert [t["labels"] for t in targets if "page" in t["labels"]] == [
        {**targets[-2]["labels"], "page": "experts", "__metrics_path__": "/metrics/experts"}
    ]


def test_gateways_come_and_go() -> None:
    gateways = Gateways("127.0.0.1:8000")

    def about(pid: int) -> dict[str, object]:
        return {"node": "n", "host": "10.0.0.7", "pid": pid, "metrics_address": "0.0.0.0:9"}

    gateways.heard(about(1), 0.0)
    gateways.heard(about(2), 1.0)
    gateways.heard(about(1), 10.0)
    assert [(g.process_id, g.pid) for g in gateways.living(11.0)] == [
        ("gateway-0", 1),
        ("gateway-1", 2),
    ]
    assert gateways.living(11.0)[0].metrics_address == "10.0.0.7:9"
    assert [g.pid for g in gateways.living(20.0)] == [1]
    gateways.heard(about(3), 20.0)
    assert [(g.process_id, g.pid) for g in gateways.living(21.0)] == [
        ("gateway-0", 1),
        ("gateway-1", 3),
    ]
