"""Each command of the pages on operations is run as it is written, or it is said here why not."""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kube_api import KubeApi, kube_api
from tests.support.manifests import groups, kubectl, of_kind, rendered
from tests.support.markdown import commands
from tests.support.prometheus import program

PAGES = ("kubernetes.md", "monitoring.md")
# Beginnings of commands that are not run here, and what holds them instead.
ELSEWHERE = {
    "docker build ": "no engine here: test_manifests_and_code.py reads the Dockerfile",
    "curl http://127.0.0.1:": "the pages asked for are asked in tests/e2e",
    "make ": "a target of the Makefile; it runs tests",
    "prometheus --config.file=monitoring/prometheus.yml": "tests/e2e/served/test_prometheus.py",
}


def commands_of(page: str) -> list[str]:
    return commands(Path(__file__).parents[3] / "docs" / "operations" / page)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with kube_api(tmp_path) as server:
        yield server


def run(command: str, folder: Path, api: KubeApi) -> subprocess.CompletedProcess[str]:
    """As a shell runs it, in the checkout, with the tools of this environment."""
    path = os.pathsep.join([str(Path(kubectl()).parent), os.environ["PATH"]])
    return subprocess.run(
        command.replace(".venv/bin/orrery", f"{shlex.quote(sys.executable)} -m cluster.cli"),
        shell=True,
        cwd=folder,
        env={**os.environ, "KUBECONFIG": str(api.kubeconfig), "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_command_does_what_the_page_says(page: str, repository: Path, api: KubeApi) -> None:
    applied = 0
    for command in commands_of(page):
        if any(command.startswith(beginning) for beginning in ELSEWHERE):
            continue
        if " port-forward " in command:
            check_forward(command)
            continue
        if command.startswith("promtool "):
            program("promtool")
        done = run(command, repository, api)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if " apply " in command:
            applied += 1
            names = {(item["kind"], item["metadata"]["name"]) for item in rendered("local")}
            there = {(o["kind"], o["metadata"]["name"]) for o in api.objects.values()}
            assert there == names | {("Secret", "orrery-ray-token")}
        if " delete " in command:
            assert api.names("RayService") == []
        if " create secret " in command:
            (secret,) = [o for o in api.objects.values() if o["kind"] == "Secret"]
            assert len(base64.b64decode(secret["data"]["auth_token"])) == 64
    assert applied == (2 if page == "kubernetes.md" else 0)


def check_forward(command: str) -> None:
    """The service and its port are there; forwarding needs a kubelet."""
    found = re.fullmatch(
        r"kubectl --namespace (\S+) port-forward service/(\S+) (?:\d+:)?(\d+)", command
    )
    assert found is not None, command
    namespace, name, port = found.groups()
    (service,) = [s for s in of_kind("local", "Service") if s["metadata"]["name"] == name]
    assert service["metadata"]["namespace"] == namespace
    assert int(port) in [item["port"] for item in service["spec"]["ports"]]


def test_every_target_of_make_exists(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for command in commands_of(page):
            if command.startswith("make "):
                assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


def test_the_page_tells_the_ports_of_the_pods(repository: Path) -> None:
    page = (repository / "docs/operations/kubernetes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (head|router|expert) \| ([\d, ]+) \|", page, re.MULTILINE)
    told = {
        ("controller" if pod == "head" else pod, int(port))
        for pod, ports in rows
        for port in ports.split(",")
    }
    assert told == {
        (group.part, port) for group in groups("local").values() for port in group.ports.values()
    }
