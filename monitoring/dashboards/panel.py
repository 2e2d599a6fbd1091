"""What a panel shows, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """lines, stacked: over time. number: now. buckets: a histogram over time. rows: series as rows
    of a heatmap over time. matrix: a table of layers by experts, coloured."""

    LINES = "lines"
    STACKED = "stacked"
    NUMBER = "number"
    BUCKETS = "buckets"
    ROWS = "rows"
    MATRIX = "matrix"


@dataclass(frozen=True)
class Query:
    """legend: Grafana's template of a series' name, such as `{{worker}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """unit: Grafana's name of it: s, percentunit, reqps, bytes, short.
    why: what to see in it, shown at the title. width: of 24 columns.
    red_from, red_below: where a value is trouble, as an alert has it; neither: no value is.
    """

    title: str
    why: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = Kind.LINES
    width: int = 8
    red_from: float | None = None
    red_below: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Board:
    """One dashboard. uid: stays, so that links do. layers: it lets one choose a `$layer`."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    layers: bool = False

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


def quantiles(metric: str, *levels: float, by: str = "") -> tuple[Query, ...]:
    """Quantiles of a histogram over the chosen window, one series for each value of label `by`."""
    labels = f"le, {by}" if by else "le"
    name = f"{{{{{by}}}}} " if by else ""
    return tuple(
        Query(
            f"histogram_quantile({level}, "
            f"sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))",
            f"{name}p{level * 100:g}",
        )
        for level in levels
    )


def mean(metric: str, by: str = "") -> Query:
    """Mean of a histogram's observations over the chosen window."""
    grouped = f" by ({by})" if by else ""
    return Query(
        f"sum{grouped} (rate({metric}_sum[$__rate_interval]))"
        f" / sum{grouped} (rate({metric}_count[$__rate_interval]))",
        f"{{{{{by}}}}}" if by else "mean",
    )


def rate(metric: str, by: str = "", legend: str = "") -> Query:
    """A counter's rate over the chosen window, summed over everything but the labels `by`."""
    grouped = f" by ({by})" if by else ""
    names = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",")) if by else ""
    return Query(f"sum{grouped} (rate({metric}[$__rate_interval]))", legend or names)
