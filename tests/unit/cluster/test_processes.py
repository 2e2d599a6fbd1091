"""The parts of `orrery serve` that need no cluster."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.blueprint import draw
from cluster.config_reader import read_config
from cluster.errors import ConfigError, PreflightError
from cluster.preflight import check_port
from cluster.supervisor import environment

ORPHANS = """
import subprocess, sys, time
from cluster.descendants import adopt_orphans, descendants, end_all
adopt_orphans()
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
middle = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], "
    "start_new_session=True)"
)
subprocess.run([sys.executable, "-c", middle, deaf])
subprocess.run([sys.executable, "-c", middle, "import time; time.sleep(60)"])
time.sleep(0.5)
print(len(descendants()), end_all(1.0), len(descendants()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_orphans_are_found_and_ended() -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "2 2 0\n"
    assert time.monotonic() - started < 20


def test_the_environment_of_ray() -> None:
    config = read_config({"router": {"timeout_s": 4000.5}})
    base = {"RAY_worker_niceness": "3", "PYTHONPATH": "/elsewhere"}
    made = environment(base, config, Path("/tmp/orrery-12345678"))
    assert made["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert made["RAY_worker_niceness"] == "3"
    assert made["PYTHONPATH"].endswith(":/elsewhere")
    ports = {name: value for name, value in made.items() if name.endswith("_PORT")}
    assert len(set(ports.values())) == 3
    assert made["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"] == "4121"
    assert made["RAY_AUTH_MODE"] == "token"
    assert made["RAY_AUTH_TOKEN"] != environment(base, config, Path("/tmp/x"))["RAY_AUTH_TOKEN"]
    joining = read_config({"ray": {"address": "10.0.0.7:6379"}})
    assert "RAY_AUTH_MODE" not in environment(base, joining, Path("/tmp/x"))
    assert made["RAY_SERVE_HAPROXY_SOCKET_PATH"].startswith("/tmp/orrery-12345678/")


def test_the_planner_is_pure() -> None:
    code = (
        "import sys, cluster.planner; "
        "print({'torch', 'ray', 'grpc', 'numba', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "set()\n"


def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(PreflightError, match="cannot listen on 203.0.113.1:80"):
        check_port("203.0.113.1", 80, "--port")


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        draw(read_config({"model": {"path": str(tmp_path)}}))
