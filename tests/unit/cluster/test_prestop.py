"""What a pod does before it ends: waits for what is at work, and never longer than it may."""

from __future__ import annotations

import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cluster.prestop import main
from monitoring.metrics import GatewayMetrics
from monitoring.server import MetricsServer
from tests.support.ports import free_port


def test_a_gateway_is_waited_for_until_its_answers_end() -> None:
    registry = CollectorRegistry()
    requests = GatewayMetrics(registry).open_requests
    with MetricsServer(registry) as server:
        assert main(["--gateway", server.address, "--seconds", "5"]) == 0
        requests.inc()
        began = time.monotonic()
        assert main(["--gateway", server.address, "--seconds", "0.7"]) == 1
        assert time.monotonic() - began < 3


def test_a_controller_is_waited_for_until_no_router_has_requests() -> None:
    load = {"running": 1, "waiting": 0, "kv_blocks_total": 512}
    rows: list[dict[str, Any]] = [
        {"role": "router", "load": load},
        {"role": "expert", "load": {"tokens": 7}},
        {"role": "gateway", "load": {}},
    ]
    pages = {"/status": lambda: {"processes": rows}}
    with MetricsServer(CollectorRegistry(), debug=pages) as server:
        assert main(["--controller", server.address, "--seconds", "0.7"]) == 1
        load["running"] = 0
        assert main(["--controller", server.address, "--seconds", "5"]) == 0


@pytest.mark.parametrize("kind", ["expert", "router", "gateway", "controller"])
def test_who_is_gone_has_nothing_left_to_give_up(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--{kind}", f"127.0.0.1:{free_port()}", "--seconds", "5"]) == 0
    assert "prestop: " in capsys.readouterr().err
