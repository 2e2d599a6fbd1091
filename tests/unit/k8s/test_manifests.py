"""Every overlay renders into objects that Kubernetes and the operators accept."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from tests.support.manifests import CRDS, LOADER, OVERLAYS, groups, of_kind, rendered, serve_config

KUBERNETES = "1.37"
# Kind to the file that has its schema.
OPERATORS = {
    "RayService": "ray.io_rayservices.yaml",
    "PodMonitor": "monitoring.coreos.com_podmonitors.yaml",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules.yaml",
}
SECRET = re.compile(r"token|secret|password|credential", re.IGNORECASE)


def strict(schema: Any) -> Any:
    """A CRD's schema that refuses the fields which Kubernetes would drop without a word."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


@cache
def crd(kind: str, version: str) -> jsonschema.Validator:
    """Takes the schema as it is: not all of its patterns, Go's, would pass for Python's."""
    if not CRDS.is_dir():
        pytest.skip(f"the CRD schemas are not at {CRDS}")
    definition = yaml.load((CRDS / OPERATORS[kind]).read_text(encoding="utf-8"), LOADER)
    (found,) = [v for v in definition["spec"]["versions"] if v["name"] == version]
    schema = strict(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_accepts_every_object(overlay: str) -> None:
    for item in rendered(overlay):
        if item["kind"] not in OPERATORS:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("kind", OPERATORS)
def test_the_operators_accept_their_objects(overlay: str, kind: str) -> None:
    (item,) = of_kind(overlay, kind)
    crd(kind, item["apiVersion"].rpartition("/")[2]).validate(item)


def test_the_schemas_refuse_a_misspelt_field() -> None:
    (service,) = of_kind("local", "RayService")
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParam"] = {}
    with pytest.raises(jsonschema.ValidationError, match="rayStartParam"):
        crd("RayService", "v1").validate(service)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_of_a_ray_service_are_pods(overlay: str) -> None:
    """The CRD knows pods only roughly; Kubernetes knows them in full."""
    for group in groups(overlay).values():
        template = group.spec["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": group.name, **template["metadata"]},
            "spec": group.pod,
        }
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_serve_accepts_its_config(overlay: str) -> None:
    config = ServeDeploySchema.model_validate(serve_config(overlay))
    assert [application.name for application in config.applications] == ["orrery"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_may_more_than_it_needs(overlay: str) -> None:
    for group in groups(overlay).values():
        pod = group.pod["securityContext"]
        assert pod["runAsNonRoot"]
        assert pod["runAsUser"] > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not group.pod["automountServiceAccountToken"]
        container = group.container["securityContext"]
        assert container["readOnlyRootFilesystem"]
        assert not container["allowPrivilegeEscalation"]
        assert container["capabilities"] == {"drop": ["ALL"]}
        writable = {
            mount["mountPath"]
            for mount in group.container["volumeMounts"]
            if not mount.get("readOnly")
        }
        assert writable == {"/tmp", "/var/lib/orrery"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_stand_there_by_reference_only(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")
    for data in (item["data"] for item in of_kind(overlay, "ConfigMap")):
        assert not [name for name in data if SECRET.search(name)]
    (service,) = of_kind(overlay, "RayService")
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {
        "mode": "token",
        "secretName": "orrery-ray-token",
    }
    for group in groups(overlay).values():
        assert not [entry for entry in group.container.get("env", []) if "value" in entry]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_is_the_one_that_is_installed(overlay: str, repository: Path) -> None:
    (service,) = of_kind(overlay, "RayService")
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = service["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"ray[serve]=={version}" in project["dependencies"]
