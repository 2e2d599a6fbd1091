"""A Ray cluster that is not ours: nothing of others is ended, and nothing of ours stays."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from cluster.config_reader import read_config
from cluster.supervisor import environment
from tests.e2e.server import Orrery

pytestmark = pytest.mark.ray

SERVE = """
import sys, ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False)
if sys.argv[2] == "start":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[3])})
names = {actor["namespace"] for actor in ray.util.list_named_actors(all_namespaces=True)}
print("running" if "serve" in names else "absent", "orrery" if "orrery" in names else "nobody")
if sys.argv[2] == "stop":
    serve.shutdown()
"""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    joining = read_config({"ray": {"address": "auto"}})
    with tempfile.TemporaryDirectory(prefix="orrery-") as scratch:
        for name, value in environment({}, joining, Path(scratch)).items():
            monkeypatch.setenv(name, value)
        yield from cluster_of_others()


def cluster_of_others() -> Iterator[str]:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 8, "include_dashboard": False}
    )
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def ray_serve(address: str, what: str, port: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SERVE, address, what, str(port)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()[-1]


# It starts Ray, and on it orrery three times.
@pytest.mark.timeout(600)
def test_on_a_cluster_of_others(orrery: Orrery, tiny_model: Path, address: str) -> None:
    arguments = ("--model", str(tiny_model), "--workers", "2", "--ray-address", address)

    # Somebody else's Serve is neither used nor ended.
    assert ray_serve(address, "start", orrery.port + 1) == "running nobody"
    refused = orrery.run("serve", "--port", str(orrery.port), *arguments, seconds=120)
    assert refused.returncode == 1
    assert "already runs Ray Serve" in refused.stderr
    assert ray_serve(address, "stop") == "running nobody"

    # What stays when all of our own processes are killed at once can be ended from anywhere.
    orrery.serve(*arguments)
    orrery.wait_for("ready: ")
    server = orrery.server
    for process in [*psutil.Process(server).children(recursive=True), psutil.Process(server)]:
        process.kill()
    orrery.wait_for_end()
    second = orrery.run("serve", "--port", str(orrery.port + 2), *arguments, seconds=120)
    assert second.returncode == 1
    assert f"orrery stop --ray-address {address}" in second.stderr
    stopped = orrery.run("stop", "--ray-address", address, seconds=120)
    assert stopped.returncode == 0, stopped.stderr
    assert ray_serve(address, "look") == "absent nobody"
    again = orrery.run("stop", "--ray-address", address, seconds=120)
    assert again.returncode == 1
    assert "runs no orrery" in again.stderr
