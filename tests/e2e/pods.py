"""The pods of the local overlay as processes of this machine.

A pod has a network and a file system of its own; here they share one. So ports move aside, each
number everywhere alike, and the mounted paths lie in a temporary folder. Nothing else differs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cluster.config_reader import read_config
from cluster.ingress.haproxy import write_haproxy
from cluster.supervisor import environment
from tests.support.manifests import command_line, config_map, groups, serve_config
from tests.support.ports import free_port
from tests.support.processes import MARK, marked, wait_for_none

OVERLAY = "local"
# Pods of the overlay that are started, one each; the config is told of one expert worker less.
STARTED = ("head", "routers", "experts-a")
_WORKER_PORTS = ("min-worker-port", "max-worker-port")


class Pods:
    """One Ray cluster made of the pods' own command lines."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        # Short: the paths of Ray's sockets lie below it.
        self.folder = Path(tempfile.mkdtemp(prefix="pods-", dir="/tmp"))
        self.groups = {name: groups(OVERLAY)[name] for name in STARTED}
        self.token = secrets.token_hex(16)
        self.ours = {
            port: free_port()
            for group in self.groups.values()
            for name, port in group.ports.items()
            if name != "gcs-server"
        }
        self.gcs = free_port()
        self._rays: dict[str, dict[int, int]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.config_file = self.folder / "orrery.yaml"
        config = yaml.safe_load(self.moved(config_map(OVERLAY, "orrery-config")["orrery.yaml"]))
        config["experts"]["workers"] = 1
        self.config_file.write_text(yaml.safe_dump(config), encoding="utf-8")

    def moved(self, text: str, pod: str = "head") -> str:
        """A piece of a manifest with this machine's ports in it."""
        ports = self.ours | self._rays.get(pod, {})
        return re.sub(r"\b\d{4,5}\b", lambda found: str(ports.get(int(found[0]), found[0])), text)

    def environment(self) -> dict[str, str]:
        """The ConfigMap's, and what KubeRay adds: the Secret's token, the head's address."""
        given = config_map(OVERLAY, "orrery-environment")
        home = str(self.folder)
        paths = {
            "HOME": os.environ["HOME"],
            "ORRERY_HOME": home,
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_haproxy(self.folder)),
        }
        joined = read_config({"ray": {"address": "auto"}})
        return {
            **os.environ,
            # HAProxy's files and ports that pods do not share.
            **environment({}, joined, self.folder),
            **{name: value for name, value in given.items() if name != "NUMBA_CACHE_DIR"},
            **paths,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_ADDRESS": f"127.0.0.1:{self.gcs}",
            "RAY_TMPDIR": home,
            MARK: self.mark,
        }

    def start(self, name: str) -> None:
        group = self.groups[name]
        parameters = group.start_parameters(f"127.0.0.1:{self.gcs}")
        first = 20000 + 1000 * len(self._processes)
        moved = {"min-worker-port": str(first), "max-worker-port": str(first + 899)}
        for key in parameters:
            if key.endswith("-port") and key not in _WORKER_PORTS:
                moved[key] = str(self.gcs if key == "port" else free_port())
        self._rays[name] = {
            int(value): int(moved[key]) for key, value in parameters.items() if key in moved
        }
        if group.is_head:
            moved |= {"port": str(self.gcs), "dashboard-port": str(self.ours[8265])}
        line = command_line({**parameters, **moved}, head=group.is_head)
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                ["bash", "-c", line],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def deploy(self, file: Path | None = None) -> None:
        """Hands Serve its config as KubeRay's operator does; `file`: another one of orrery's."""
        config = json.loads(self.moved(json.dumps(serve_config(OVERLAY))))
        (application,) = config["applications"]
        application["args"]["config"] = str(file or self.config_file)
        answer = self._dashboard("PUT", config)
        assert answer.is_success, answer.text

    def application(self) -> dict[str, Any]:
        """Serve's account of it."""
        found: dict[str, Any] = self._dashboard("GET").json()["applications"]["orrery"]
        return found

    def probe(self, name: str, kind: str) -> bool:
        """One probe of a pod, as the kubelet would ask it."""
        probe = self.groups[name].container[f"{kind}Probe"]
        if "grpc" in probe:
            return self._ask_health(probe["grpc"])
        port = probe["httpGet"]["port"]
        number = self.groups[name].ports[port] if isinstance(port, str) else port
        return self.get(name, number, probe["httpGet"]["path"]) is not None

    def get(self, name: str, port: int, path: str) -> httpx.Response | None:
        """A page of a pod; None when it is not there or not well."""
        url = f"http://127.0.0.1:{self.moved(str(port), name)}{path}"
        try:
            answer = httpx.get(url, timeout=10, trust_env=False)
        except httpx.TransportError:
            return None
        return answer if answer.is_success else None

    def prestop(self, name: str) -> int:
        """Runs the pod's preStop command; its exit code."""
        _, *arguments = [self.moved(word, name) for word in self.groups[name].prestop]
        return subprocess.run(
            [sys.executable, *arguments], env=self.environment(), timeout=90, check=False
        ).returncode

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} ended: {self.story(name)}"
            if time.monotonic() > end:
                stories = "\n".join(self.story(name) for name in self._processes)
                raise TimeoutError(f"{what}: not within {seconds} s\n{stories}")
            time.sleep(0.3)

    def story(self, name: str) -> str:
        log = self.folder / f"{name}.log"
        return f"--- {name}:\n{log.read_text(errors='replace')[-3000:]}"

    def stop(self) -> None:
        """Ends everything at once: Ray would drain each node for half a minute."""
        for process in marked(self.mark):
            process.kill()
        for ended in self._processes.values():
            ended.wait(10)
        left = wait_for_none(self.mark, 10)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, [process.cmdline() for process in left]

    def _dashboard(self, method: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        return httpx.request(
            method,
            f"http://127.0.0.1:{self.ours[8265]}/api/serve/applications/",
            json=body,
            headers={"x-ray-authorization": f"Bearer {self.token}"},
            timeout=30,
            trust_env=False,
        )

    def _ask_health(self, probe: Mapping[str, Any]) -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{self.ours[probe['port']]}") as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=probe["service"]), timeout=5
                )
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
