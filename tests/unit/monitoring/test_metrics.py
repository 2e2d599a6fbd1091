"""The declarations: names that Prometheus accepts, no clash, and the page made from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from monitoring.catalog import entries, page
from monitoring.metrics import (
    ControllerMetrics,
    GatewayMetrics,
    RouterMetrics,
    WorkerMetrics,
    set_state,
)

ROOT = Path(__file__).parents[3]


def test_all_roles_share_one_registry_without_a_clash() -> None:
    registry = CollectorRegistry()
    RouterMetrics(registry)
    WorkerMetrics(registry)
    GatewayMetrics(registry)
    ControllerMetrics(registry)
    names = [family.name for family in registry.collect()]
    assert len(names) == len(set(names))
    assert all(name.startswith("orrery_") for name in names)


def test_two_instances_do_not_share_series() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    RouterMetrics(first).generated_tokens.inc(7)
    RouterMetrics(second)
    assert first.get_sample_value("orrery_router_generated_tokens_total") == 7
    assert second.get_sample_value("orrery_router_generated_tokens_total") == 0


def test_a_role_declared_twice_on_one_registry_is_refused() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        WorkerMetrics(registry)


def test_every_metric_of_the_agreed_list_is_there() -> None:
    registry = CollectorRegistry()
    router, worker = RouterMetrics(registry), WorkerMetrics(registry)
    router.requests.labels(finish_reason="stop").inc()
    router.kv_blocks.labels(state="used").set(3)
    router.dispatch_seconds.labels(worker="expert-0").observe(0.001)
    router.dispatch_bytes.labels(worker="expert-0", direction="sent").inc(10)
    router.dispatch_errors.labels(worker="expert-0", code="unavailable").inc()
    router.expert_tokens.labels(layer=1).inc(8)
    router.balancedness.labels(layer=1).set(0.5)
    router.epoch.labels(part="term").set(2)
    worker.experts_held.labels(layer=1).set(96)
    worker.bad_frames.labels(code="bad_frame").inc()
    text = generate_latest(registry).decode()
    assert 'orrery_router_dispatch_bytes_total{direction="sent",worker="expert-0"} 10.0' in text
    assert 'orrery_router_epoch{part="term"} 2.0' in text
    assert 'orrery_worker_experts_held{layer="1"} 96.0' in text


def test_set_state_is_one_hot() -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    for current in ("loading", "ready"):
        set_state(metrics.state, ("loading", "ready", "failed"), current)
    values = {
        state: registry.get_sample_value("orrery_worker_state", {"state": state})
        for state in ("loading", "ready", "failed")
    }
    assert values == {"loading": 0, "ready": 1, "failed": 0}


def test_names_carry_a_unit_or_what_they_count() -> None:
    for entry in entries():
        assert re.fullmatch(r"orrery_[a-z0-9_]+", entry.name)
        assert entry.help.endswith(".")
        if entry.kind == "histogram":
            assert entry.name.endswith(("_seconds", "_rows"))


def test_the_page_says_what_is_declared() -> None:
    written = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m monitoring.catalog > docs/metrics.md"
