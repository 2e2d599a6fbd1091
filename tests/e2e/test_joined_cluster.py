"""A Ray cluster that is not ours: nothing of others is ended, and nothing of ours stays."""

from __future__ import annotations

import contextlib
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

OTHERS = """
import sys, ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False)
for line in sys.stdin:
    if line == "start\\n":
        serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    names = {actor["namespace"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    if line == "stop\\n":
        serve.shutdown()
    serving = "running" if "serve" in names else "absent"
    print("others:", serving, "orrery" if "orrery" in names else "nobody", flush=True)
"""


class Others:
    """Whoever else uses the cluster: one process, which may start Ray Serve, and looks around."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, what: str) -> str:
        """`start`, `stop` or `look`; whether Serve runs, and whether orrery does, before a stop."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("others: "):
                return line.removeprefix("others: ").strip()
        raise AssertionError("the others' process has ended")


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


@contextlib.contextmanager
def others_on(address: str, port: int) -> Iterator[Others]:
    process = subprocess.Popen(
        [sys.executable, "-c", OTHERS, address, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Others(process)
        finally:
            process.kill()


# It starts Ray, and on it orrery three times.
@pytest.mark.timeout(600)
def test_on_a_cluster_of_others(orrery: Orrery, tiny_model: Path, address: str) -> None:
    """Each flag does what it says there: so many workers, each with whole layers, of that model."""
    flags = ("--workers", "2", "--placement", "layer-major", "--ray-address", address)
    arguments = ("--model", str(tiny_model), *flags)
    with others_on(address, orrery.port + 1) as others:
        # Somebody else's Serve is neither used nor ended.
        assert others.do("start") == "running nobody"
        refused = orrery.run("serve", "--port", str(orrery.port), *arguments, seconds=120)
        assert refused.returncode == 1
        assert "already runs Ray Serve" in refused.stderr
        assert others.do("stop") == "running nobody"

        # What stays when all of our own processes are killed at once can be ended from anywhere.
        orrery.serve(*arguments)
        orrery.wait_for("ready: ")
        members = [p for p in orrery.status()["processes"] if p["role"] == "expert"]
        held = [p for p in members if not p["spare"]]
        assert sorted(p["layers"] for p in held) == [[1], [2]]
        assert [p["experts"] for p in held] == [16, 16]
        server = orrery.server
        for process in [*psutil.Process(server).children(recursive=True), psutil.Process(server)]:
            process.kill()
        orrery.wait_for_end()
        second = orrery.run("serve", "--port", str(orrery.port + 2), *arguments, seconds=120)
        assert second.returncode == 1
        assert f"orrery stop --ray-address {address}" in second.stderr
        stopped = orrery.run("stop", "--ray-address", address, seconds=120)
        assert stopped.returncode == 0, stopped.stderr
        assert others.do("look") == "absent nobody"
        again = orrery.run("stop", "--ray-address", address, seconds=120)
        assert again.returncode == 1
        assert "runs no orrery" in again.stderr
