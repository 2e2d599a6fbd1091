"""What routers do when a worker is late, lost or wrong."""

from __future__ import annotations

from monitoring.dashboards.panel import Panel, Query, Row, rate

FAILOVER = Row(
    title="Failover",
    panels=(
        Panel(
            title="Failovers",
            why="Messages whose rows went to other workers, or were parked; by worker and"
            " reason: lost, late, error or garbage.",
            queries=(rate("orrery_router_failovers_total", "worker, reason"),),
        ),
        Panel(
            title="Late messages",
            why="By what is usual for the worker. Others were asked for the rows, if any.",
            queries=(rate("orrery_router_stragglers_total", "worker"),),
        ),
        Panel(
            title="Answers that came too late",
            why="Discarded, since others had answered before.",
            queries=(rate("orrery_router_late_answers_total", "worker"),),
        ),
        Panel(
            title="Circuit breakers not closed",
            why="Routers for which a worker is in doubt, by worker and state.",
            queries=(
                Query(
                    'sum by (worker, state) (orrery_router_breaker_state{state!="closed"})',
                    "{{worker}} {{state}}",
                ),
            ),
            red_from=1,
        ),
        Panel(
            title="Canaries",
            why="Rows whose right answer is known. A wrong one unmasks a worker.",
            queries=(rate("orrery_router_canaries_total", "worker, verdict"),),
        ),
        Panel(
            title="Hedges",
            why="Second workers asked before the first was late, and how many of them won.",
            queries=(rate("orrery_router_hedges_total", "worker, outcome"),),
        ),
    ),
)
