"""The pods' own commands, probes and Serve config make a cluster that serves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.pods import STARTED, Pods
from tests.support.manifests import of_kind

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    pods = Pods()
    try:
        for name in STARTED:
            pods.start(name)
            pods.wait(f"{name} lives", lambda name=name: pods.probe(name, "startup"), 60)
            assert pods.probe(name, "liveness")
            if name == "head":
                # As KubeRay does: the application waits for nodes that are still to come.
                pods.deploy()
        pods.wait(
            "the application runs",
            lambda: pods.application()["status"] in ("RUNNING", "DEPLOY_FAILED"),
            120,
        )
        yield pods
    finally:
        pods.stop()


def test_serve_runs_it_and_every_pod_is_ready(pods: Pods) -> None:
    assert pods.application()["status"] == "RUNNING", pods.application()["message"]
    for name in STARTED:
        pods.wait(f"{name} is ready", lambda name=name: pods.probe(name, "readiness"), 30)


def test_it_answers_at_the_port_of_the_service(pods: Pods) -> None:
    body = {"model": "nano-k2", "messages": [{"role": "user", "content": "Hello!"}]}
    answer = httpx.post(
        f"http://127.0.0.1:{serve_port(pods)}/v1/chat/completions",
        json=body,
        timeout=60,
        trust_env=False,
    )
    assert answer.is_success, answer.text
    assert answer.json()["choices"][0]["message"]["content"]


def test_each_process_runs_in_its_own_kind_of_pod(pods: Pods) -> None:
    answer = pods.get("head", pods.groups["head"].ports["orrery-metrics"], "/status")
    assert answer is not None
    rows = {row["role"]: row for row in answer.json()["processes"]}
    assert answer.json()["state"] == "ready"
    assert rows["router"]["node"] == rows["gateway"]["node"]
    assert len({rows[role]["node"] for role in ("controller", "router", "expert")}) == 3
    listening = {
        role: (_port(row["address"]), _port(row["metrics_address"])) for role, row in rows.items()
    }
    ports = {name: group.ports for name, group in pods.groups.items()}
    assert listening == {
        "controller": (pods.ours[ports["head"]["orrery-metrics"]],) * 2,
        "gateway": (
            pods.ours[ports["routers"]["serve"]],
            pods.ours[ports["routers"]["gateway-metrics"]],
        ),
        "router": (
            pods.ours[ports["routers"]["grpc"]],
            pods.ours[ports["routers"]["orrery-metrics"]],
        ),
        "expert": (
            pods.ours[ports["experts-a"]["grpc"]],
            pods.ours[ports["experts-a"]["orrery-metrics"]],
        ),
    }


def test_what_the_pod_monitor_scrapes_is_there(pods: Pods) -> None:
    (monitor,) = of_kind("local", "PodMonitor")
    scraped = set()
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        kept = [rule["regex"] for rule in endpoint["relabelings"] if rule.get("action") == "keep"]
        for name, group in pods.groups.items():
            if endpoint["port"] in group.ports and group.part in (kept or [group.part]):
                page = pods.get(name, group.ports[endpoint["port"]], endpoint["path"])
                assert page is not None, (name, endpoint)
                scraped |= {line.split("_")[1] for line in page.text.splitlines() if "_" in line}
    assert {"controller", "gateway", "router", "worker"} <= scraped


def test_a_fleet_with_another_config_is_refused_and_the_first_one_goes_on(pods: Pods) -> None:
    other = pods.folder / "other.yaml"
    config = pods.config_file.read_text(encoding="utf-8")
    other.write_text(config.replace("workers: 1", "workers: 2"), encoding="utf-8")
    pods.deploy(other)
    pods.wait("it is refused", lambda: pods.application()["status"] == "DEPLOY_FAILED", 60)
    assert "another config" in pods.application()["message"]
    assert all(pods.probe(name, "readiness") for name in STARTED)


def test_all_pods_end_at_once_and_what_was_begun_is_finished(pods: Pods) -> None:
    """As when KubeRay deletes a Ray cluster that it has replaced."""
    with ThreadPoolExecutor() as run:
        stream = run.submit(tokens_of_a_stream, f"http://127.0.0.1:{serve_port(pods)}", 1500)
        pods.wait("the stream is open", lambda: streams(pods) == 1, 30)
        codes = run.map(pods.prestop, STARTED)
        assert dict(zip(STARTED, codes, strict=True)) == dict.fromkeys(STARTED, 0)
        assert stream.done()
        assert stream.result() == 1500
    for name in ("routers", "experts-a"):
        pods.wait(f"{name} is not ready", lambda name=name: not pods.probe(name, "readiness"), 10)


def serve_port(pods: Pods) -> int:
    """Where the service sends its clients."""
    (service,) = [s for s in of_kind("local", "Service") if s["metadata"]["name"] == "orrery"]
    (port,) = service["spec"]["ports"]
    return pods.ours[pods.groups["routers"].ports[port["targetPort"]]]


def streams(pods: Pods) -> float:
    """Open at the gateway."""
    page = pods.get("routers", pods.groups["routers"].ports["gateway-metrics"], "/metrics")
    assert page is not None
    found = re.search(r"^orrery_gateway_open_streams (\S+)$", page.text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def tokens_of_a_stream(url: str, most: int) -> int:
    """How many tokens a streamed answer had; it must end well."""
    body = {
        "model": "nano-k2",
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": most,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False)
    *_, usage, done = [line for line in answer.text.splitlines() if line]
    assert done == "data: [DONE]"
    return int(json.loads(usage.removeprefix("data: "))["usage"]["completion_tokens"])


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
