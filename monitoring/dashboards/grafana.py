"""Boards made into Grafana's dashboards."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TableCellBackgroundDisplayMode,
    TableColoredBackgroundCellOptions,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.dashboards.panel import Board, Kind, Panel

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_HEIGHT = {Kind.NUMBER: 4, Kind.MATRIX: 12, Kind.ROWS: 12}


def to_json(board: Board) -> str:
    """The dashboard as Grafana imports it."""
    built = dashboard.Dashboard(board.title).uid(board.uid).description(board.description)
    built.tags(["orrery"]).refresh("10s").time("now-30m", "now").readonly()
    built.tooltip(DashboardCursorSync.CROSSHAIR)
    others = dashboard.DashboardLink("Orrery").type(DashboardLinkType.DASHBOARDS)
    built.link(others.tags(["orrery"]).keep_time(True).include_vars(True))
    built.with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    if board.layers:
        built.with_variable(_layers())
    numbers = itertools.count(1)
    for row in board.rows:
        built.with_row(dashboard.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            built.with_panel(_panel(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _layers() -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable("layer").label("Layer").datasource(_SOURCE)
    variable.query("label_values(orrery_router_expert_tokens_total, layer)")
    variable.sort(VariableSort.NUMERICAL_ASC)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def _panel(panel: Panel) -> Any:
    make: Callable[[], Any] = {
        Kind.LINES: _lines,
        Kind.STACKED: _stacked,
        Kind.NUMBER: _number,
        Kind.BUCKETS: _buckets,
        Kind.ROWS: _rows,
        Kind.MATRIX: _matrix,
    }[panel.kind]
    built = make().title(panel.title).description(panel.why).unit(panel.unit).datasource(_SOURCE)
    built.span(panel.width).height(_HEIGHT.get(panel.kind, 8))
    if panel.kind in (Kind.NUMBER, Kind.LINES):
        # Without any of its own, Grafana colours everything above 80 red.
        built.thresholds(_thresholds(panel))
    if panel.kind is Kind.LINES and (panel.red_from, panel.red_below) != (None, None):
        style = common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        built.thresholds_style(style)
    if panel.kind is Kind.BUCKETS:
        built.y_axis(heatmap.YAxisConfig().unit(panel.unit))
    for place, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend)
        target.ref_id(chr(ord("A") + place)).datasource(_SOURCE)
        if panel.kind in (Kind.NUMBER, Kind.MATRIX):
            target.instant()
        else:
            target.range()
        if panel.kind is Kind.MATRIX:
            target.format(PromQueryFormat.TABLE)
        elif panel.kind is Kind.BUCKETS:
            target.format(PromQueryFormat.HEATMAP)
        built.with_target(target)
    return built


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    if panel.red_below is not None:
        steps = [Threshold(None, "red"), Threshold(panel.red_below, "green")]
    elif panel.red_from is not None:
        steps = [Threshold(None, "green"), Threshold(panel.red_from, "red")]
    else:
        steps = [Threshold(None, "blue")]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _lines() -> timeseries.Panel:
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
    legend.placement(LegendPlacement.BOTTOM).calcs(["lastNotNull"])
    return timeseries.Panel().tooltip(tooltip).legend(legend).min(0)


def _stacked() -> timeseries.Panel:
    stacking = common.StackingConfig().mode(StackingMode.NORMAL)
    return _lines().stacking(stacking).fill_opacity(30)


def _number() -> stat.Panel:
    return stat.Panel()


def _buckets() -> heatmap.Panel:
    return heatmap.Panel().calculate(False)


def _rows() -> heatmap.Panel:
    return heatmap.Panel().calculate(False)


def _matrix() -> table.Panel:
    cells = TableColoredBackgroundCellOptions(mode=TableCellBackgroundDisplayMode.BASIC)
    colors = dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_BL_YL_RD)
    matrix = DataTransformerConfig(
        id_val="groupingToMatrix",
        options={"columnField": "layer", "rowField": "expert", "valueField": "Value"},
    )
    built = table.Panel().cell_options(cells).color_scheme(colors).decimals(1).min(0).max(4)
    return built.with_transformation(matrix)
