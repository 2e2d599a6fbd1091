"""The rules as the Prometheus operator takes them.

python -m monitoring.kubernetes > k8s/base/prometheusrule.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

_FILES = ("recording.yaml", "alerts.yaml")


def prometheus_rule() -> str:
    """The text of `k8s/base/prometheusrule.yaml`."""
    groups = [
        group
        for name in _FILES
        for group in yaml.safe_load(
            (Path(__file__).parent / "rules" / name).read_text(encoding="utf-8")
        )["groups"]
    ]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "orrery"},
        "spec": {"groups": groups},
    }
    head = "# Made from monitoring/rules by `make dashboards`.\n"
    return head + yaml.safe_dump(manifest, sort_keys=False, width=100)


if __name__ == "__main__":
    sys.stdout.write(prometheus_rule())
