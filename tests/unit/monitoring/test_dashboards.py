"""Dashboards and rules name only what exists; promtool accepts the rules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from monitoring.catalog import entries
from monitoring.dashboards.boards import BOARDS
from monitoring.kubernetes import prometheus_rule
from tests.support.markdown import anchors
from tests.support.prometheus import MONITORING, program

RULES = (MONITORING / "rules" / "recording.yaml", MONITORING / "rules" / "alerts.yaml")
WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
# What discovery or Prometheus itself puts on every series.
OUTER_LABELS = {"id", "role", "node", "job", "instance", "page", "le"}
BY = re.compile(r"\b(?:by|on) \(([^)]*)\)")
MATCHER = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")


def rules() -> list[dict[str, str]]:
    return [
        rule
        for file in RULES
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def expressions() -> list[str]:
    return [
        *(query.expr for board in BOARDS for panel in board.panels for query in panel.queries),
        *(rule["expr"] for rule in rules()),
    ]


def known() -> dict[str, set[str]]:
    """Every series that a process shows or a rule records, with its labels."""
    found: dict[str, set[str]] = {"up": set()}
    for entry in entries():
        names = [entry.name]
        if entry.kind == "histogram":
            names = [f"{entry.name}_{part}" for part in ("bucket", "sum", "count")]
        found |= {name: set(entry.labels) for name in names}
    for rule in rules():
        if "record" in rule:
            grouped = BY.search(rule["expr"])
            found[rule["record"]] = set(re.split(r"[ ,]+", grouped[1])) if grouped else set()
    return found


@pytest.mark.parametrize("expr", expressions())
def test_names_only_series_and_labels_that_exist(expr: str) -> None:
    series = known()
    named = {word for word in WORD.findall(expr) if "orrery_" in word or ":" in word} - {"orrery_"}
    named = {name for name in named if not name.startswith(":")}
    assert named <= set(series), named - set(series)
    labels = set().union(*(series[name] for name in named)) | OUTER_LABELS
    for grouped in BY.findall(expr):
        assert set(re.split(r"[ ,]+", grouped.strip())) <= labels, grouped
    for name, matchers in MATCHER.findall(expr):
        for label in re.findall(r"(\w+)(?:=|!=|=~|!~)\"", matchers):
            assert label in series[name] | OUTER_LABELS, f"{name} has no label {label}"


def test_the_json_is_what_the_code_makes(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "monitoring.dashboards", str(tmp_path)], check=True, timeout=60
    )
    kept = {file.name for file in (MONITORING / "dashboards").glob("*.json")}
    assert {file.name for file in tmp_path.iterdir()} == kept
    for name in kept:
        fresh = (tmp_path / name).read_text(encoding="utf-8")
        assert fresh == (MONITORING / "dashboards" / name).read_text(encoding="utf-8"), (
            "make dashboards"
        )
        board = json.loads(fresh)
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_prometheus_rule_is_what_the_code_makes(repository: Path) -> None:
    kept = (repository / "k8s" / "base" / "prometheusrule.yaml").read_text(encoding="utf-8")
    assert kept == prometheus_rule(), "make dashboards"


def test_every_alert_names_a_heading_that_says_what_to_do(repository: Path) -> None:
    for rule in rules():
        if "alert" in rule:
            page, _, fragment = rule["annotations"]["runbook_url"].partition("#")
            assert fragment in anchors(repository / page), rule["alert"]
            assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_every_alert_is_seen_to_fire() -> None:
    file = MONITORING / "rules" / "alerts_test.yaml"
    cases = [
        case
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    ]
    assert {case["alertname"] for case in cases} == {r["alert"] for r in rules() if "alert" in r}


@pytest.mark.parametrize("titles", [[panel.title for panel in board.panels] for board in BOARDS])
def test_panels_of_a_board_have_titles_of_their_own(titles: list[str]) -> None:
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "rules/recording.yaml", "rules/alerts.yaml"],
        ["test", "rules", "rules/alerts_test.yaml"],
        ["check", "config", "prometheus.yml"],
    ],
)
def test_promtool_accepts(arguments: list[str]) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
