"""Lists every declared metric, as data and as the table of `docs/metrics.md`.

python -m monitoring.catalog > docs/metrics.md
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics import MetricWrapperBase

from monitoring import expert_page
from monitoring.metrics import ControllerMetrics, GatewayMetrics, RouterMetrics, WorkerMetrics

_ROLES = (
    ("Router", RouterMetrics),
    ("Expert worker", WorkerMetrics),
    ("Gateway", GatewayMetrics),
    ("Controller", ControllerMetrics),
)
_INTRODUCTION = """# Metrics

Each process serves `/metrics` on a port of its own; the controller lists the ports at `/sd` for
Prometheus HTTP service discovery. A router has a second page, `/metrics/experts`, for the one
metric of which a large model has thousands of series. Times are in seconds, sizes in bytes. This
page is made from `monitoring/metrics.py` by `python -m monitoring.catalog`, and a test compares the
two.
"""


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """One metric as Prometheus shows it.

    name: as scraped, i.e. counters with `_total`.
    kind: counter, gauge or histogram.
    """

    role: str
    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def entries() -> list[CatalogEntry]:
    """Every declared metric, in the order of declaration."""
    found = []
    for role, metrics in _ROLES:
        for metric in vars(metrics(CollectorRegistry())).values():
            if isinstance(metric, MetricWrapperBase):
                (family,) = metric.describe()
                found.append(
                    CatalogEntry(
                        role=role,
                        name=family.name + ("_total" if isinstance(metric, Counter) else ""),
                        kind=family.type,
                        labels=tuple(metric._labelnames),
                        help=family.documentation,
                    )
                )
        if role == "Router":
            found.append(
                CatalogEntry(
                    role=role,
                    name=expert_page.NAME,
                    kind="counter",
                    labels=expert_page.LABELS,
                    help=expert_page.MEANING,
                )
            )
    return found


def page() -> str:
    """The text of `docs/metrics.md`."""
    lines = [_INTRODUCTION]
    for role, _ in _ROLES:
        lines += [f"## {role}", "", "| name | kind | labels | meaning |", "|---|---|---|---|"]
        for entry in entries():
            if entry.role == role:
                labels = ", ".join(f"`{label}`" for label in entry.labels)
                lines.append(f"| `{entry.name}` | {entry.kind} | {labels} | {entry.help} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
