"""What a pod does before it ends: waits for what is at work, and never longer than it may."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cluster import prestop
from cluster.prestop import main
from monitoring.metrics import GatewayMetrics, WorkerMetrics
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


def test_a_worker_goes_on_as_long_as_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at its gRPC port: whoever asks there has seen it quiet, or was pressed."""
    monkeypatch.setattr(prestop, "_QUIET_S", 1.5)
    monkeypatch.setattr(prestop, "_ANSWERING_S", 0.5)
    monkeypatch.setattr(prestop, "_CANARIES", 3)
    registry = CollectorRegistry()
    rows = WorkerMetrics(registry).batch_rows
    rows.observe(4)
    stop = threading.Event()

    def compute() -> None:
        while not stop.wait(0.005):
            rows.observe(1)

    with MetricsServer(registry) as server:
        worker = ["--expert", f"127.0.0.1:{free_port()}", "--computing", server.address]
        assert 1.5 <= seconds_of([*worker, "--seconds", "60"]) < 30
        thread = threading.Thread(target=compute)
        thread.start()
        try:
            assert 3.5 <= seconds_of([*worker, "--seconds", "4"]) < 30
        finally:
            stop.set()
            thread.join()


def seconds_of(line: list[str]) -> float:
    began = time.monotonic()
    assert main(line) == 0
    return time.monotonic() - began


@pytest.mark.parametrize("kind", ["expert", "router", "gateway", "controller"])
def test_who_is_gone_has_nothing_left_to_give_up(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--{kind}", f"127.0.0.1:{free_port()}", "--seconds", "5"]) == 0
    assert "prestop: " in capsys.readouterr().err
