"""Dashboards and rules name only what exists; promtool accepts the rules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from monitoring.catalog import entries
from monitoring.dashboards.boards import BOARDS
from monitoring.dashboards.grafana import to_json
from monitoring.dashboards.panel import Board, Kind
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


@pytest.mark.parametrize("file", sorted((MONITORING / "dashboards").glob("*.json")), ids=str)
def test_grafanas_types_read_all_of_a_dashboard(file: Path) -> None:
    """What they do not know they would leave out, as Grafana does."""
    raw = json.loads(file.read_text(encoding="utf-8"))
    read = dashboard.Dashboard.from_json(raw)
    assert json.loads(JSONEncoder(sort_keys=True).encode(read)) == raw


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_an_operator_can_tell_what_a_panel_shows(board: Board) -> None:
    """Units and sources are set, series have names, no colour is Grafana's own (red from 80)."""
    raw = json.loads(to_json(board))
    variables = {variable["name"] for variable in raw["templating"]["list"]}
    for shown in (panel for panel in raw["panels"] if panel["type"] != "row"):
        assert shown["datasource"]["uid"] == "${datasource}"
        assert shown["fieldConfig"]["defaults"]["unit"]
        assert shown["description"]
        for target in shown["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert used <= variables
            if " by (" in target["expr"] and shown["type"] == "timeseries":
                assert target["legendFormat"]
        if shown["type"] == "timeseries":
            assert shown["options"]["legend"]["showLegend"]
        if shown["type"] in ("timeseries", "stat"):
            made = next(panel for panel in board.panels if panel.title == shown["title"])
            if made.kind is not Kind.STACKED:
                assert shown["fieldConfig"]["defaults"]["thresholds"]["steps"]


def test_panels_are_red_where_alerts_fire() -> None:
    """Where a panel shows what an alert compares, they agree on when it is trouble."""
    compared = {}
    for rule in rules():
        if found := re.fullmatch(r"(.*) ([<>]) ([\d.]+)", rule["expr"].strip(), re.DOTALL):
            compared[found[1]] = (found[2], float(found[3]))
    agreed = 0
    for board in BOARDS:
        for panel in board.panels:
            for query in panel.queries:
                if query.expr in compared and (panel.red_from, panel.red_below) != (None, None):
                    sign, limit = compared[query.expr]
                    least = limit if limit else 1
                    assert least == (panel.red_from if sign == ">" else panel.red_below), panel
                    agreed += 1
    assert agreed >= 6


def test_every_query_of_a_panel_is_promql(tmp_path: Path) -> None:
    asked = [query.expr for board in BOARDS for panel in board.panels for query in panel.queries]
    told = [expr.replace("$__rate_interval", "1m").replace("$layer", "1") for expr in asked]
    records = [{"record": f"query:{place}", "expr": expr} for place, expr in enumerate(told)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    line = [program("promtool"), "check", "rules", str(file)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(records)} rules found" in done.stdout


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
