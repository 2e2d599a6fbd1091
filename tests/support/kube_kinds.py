"""The kinds of objects that the small Kubernetes API knows, and how it tells kubectl of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

VERSION = "1.37"
Json = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """version: group/version, `v1` for the group without a name."""

    version: str
    name: str
    plural: str
    namespaced: bool = True
    known: bool = True

    @property
    def root(self) -> str:
        return f"/apis/{self.version}" if "/" in self.version else f"/api/{self.version}"

    @property
    def gvk(self) -> Json:
        group, _, version = self.version.rpartition("/")
        return {"group": group, "version": version, "kind": self.name}


KINDS = (
    Kind("v1", "Namespace", "namespaces", namespaced=False),
    Kind("v1", "Secret", "secrets"),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("v1", "Service", "services"),
    Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Kind("v1", "Pod", "pods"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("ray.io/v1", "RayService", "rayservices", known=False),
    Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", known=False),
    Kind("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules", known=False),
)


def discovery(path: str) -> Json | None:
    """Which kinds there are, and that writes may ask for strict checks; None for other paths."""
    versions = sorted({kind.version for kind in KINDS})
    if path == "/version":
        return {"major": "1", "minor": VERSION.partition(".")[2], "gitVersion": f"v{VERSION}.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [
            {
                "name": version.partition("/")[0],
                "versions": [{"groupVersion": version, "version": version.partition("/")[2]}],
            }
            for version in versions
            if "/" in version
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "/openapi/v3":
        roots = {kind.root for kind in KINDS}
        return {"paths": {r[1:]: {"serverRelativeURL": f"/openapi/v3{r}?hash=0"} for r in roots}}
    for kind in KINDS:
        if path == kind.root:
            return _resources(kind.version)
        if path == f"/openapi/v3{kind.root}":
            return _openapi(kind.version)
    return None


def _resources(version: str) -> Json:
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": [
            {
                "name": kind.plural,
                "singularName": kind.name.lower(),
                "namespaced": kind.namespaced,
                "kind": kind.name,
                "verbs": verbs,
            }
            for kind in KINDS
            if kind.version == version
        ],
    }


def _openapi(version: str) -> Json:
    strict = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": {
            f"{kind.root}/{kind.plural}/{{name}}": {
                "patch": {
                    "parameters": strict,
                    "x-kubernetes-group-version-kind": kind.gvk,
                    "responses": {},
                }
            }
            for kind in KINDS
            if kind.version == version
        },
    }


def collection(path: str) -> Kind | None:
    return next(
        (kind for kind in KINDS if path.startswith(kind.root) and path.endswith(f"/{kind.plural}")),
        None,
    )
