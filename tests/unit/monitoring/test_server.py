"""The metrics port: what it serves, how it refuses, that it leaves nothing behind."""

from __future__ import annotations

import logging
import socket
import threading

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from monitoring import expert_page
from monitoring.metrics import RouterMetrics
from monitoring.server import Json, ListenError, MetricsServer

DEADLINE = 10.0


def get(server: MetricsServer, path: str, **headers: str) -> httpx.Response:
    return httpx.get(
        f"http://{server.address}{path}", timeout=DEADLINE, trust_env=False, headers=headers
    )


def test_serves_metrics_health_and_debug_pages() -> None:
    registry = CollectorRegistry()
    RouterMetrics(registry).generated_tokens.inc(3)
    table: Json = {"1": [2, 0, 5]}
    with MetricsServer(registry, debug={"/debug/experts": lambda: table}) as server:
        assert "orrery_router_generated_tokens_total 3.0" in get(server, "/metrics").text
        assert get(server, "/metrics?name[]=x").status_code == 200
        assert get(server, "/healthz").text == "ok\n"
        assert get(server, "/debug/experts").json() == table
        missing = get(server, "/nothing")
    assert missing.status_code == 404
    assert "/debug/experts" in missing.text


def test_speaks_openmetrics_when_asked() -> None:
    with MetricsServer(CollectorRegistry()) as server:
        reply = get(server, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert reply.text.endswith("# EOF\n")


def test_serves_further_series_on_a_page_of_their_own() -> None:
    pages = {expert_page.PATH: lambda: expert_page.expert_page({1: [5, 0], 2: [0, 7]})}
    with MetricsServer(CollectorRegistry(), series=pages) as server:
        answer = get(server, expert_page.PATH)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    (family,) = text_string_to_metric_families(answer.text)
    assert {sample.name for sample in family.samples} == {expert_page.NAME}
    assert {tuple(sample.labels) for sample in family.samples} == {expert_page.LABELS}
    assert [sample.value for sample in family.samples] == [5, 0, 0, 7]


def test_a_failing_debug_page_is_a_500_and_harms_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> Json:
        raise KeyError("gone")

    with (
        caplog.at_level(logging.WARNING, logger="monitoring.server"),
        MetricsServer(CollectorRegistry(), debug={"/debug/broken": broken}) as server,
    ):
        assert get(server, "/debug/broken").status_code == 500
        assert get(server, "/healthz").status_code == 200
    assert "gone" in caplog.text


def test_stops_at_once_with_a_silent_client_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    server = MetricsServer(CollectorRegistry())
    server.start()
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE):
        assert get(server, "/healthz").status_code == 200
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        stopper.join(timeout=3.0)
        assert not stopper.is_alive()
    assert set(threading.enumerate()) == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=DEADLINE)


def test_start_and_stop_twice() -> None:
    server = MetricsServer(CollectorRegistry())
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.address
    server.start()
    address = server.address
    server.start()
    assert server.address == address
    server.stop()
    server.stop()
    server.start()
    assert get(server, "/healthz").status_code == 200
    server.stop()


@pytest.mark.parametrize("listen", ["", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000"])
def test_a_malformed_address_is_named(listen: str) -> None:
    with pytest.raises(ListenError, match="give host:port"):
        MetricsServer(CollectorRegistry(), listen=listen).start()


def test_a_port_in_use_is_named() -> None:
    with MetricsServer(CollectorRegistry()) as first:
        second = MetricsServer(CollectorRegistry(), listen=first.address)
        with pytest.raises(ListenError, match=first.address):
            second.start()
        with pytest.raises(RuntimeError):
            _ = second.address
