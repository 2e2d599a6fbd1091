"""Where the experts' load falls and how the workers bear it."""

from __future__ import annotations

from monitoring import expert_page
from monitoring.dashboards.failover import FAILOVER
from monitoring.dashboards.panel import Board, Kind, Panel, Query, Row, mean, quantiles, rate

_LOAD = f"sum by (layer, expert) (rate({expert_page.NAME}[5m]))"

EXPERTS = Board(
    uid="orrery-experts",
    title="Orrery: experts",
    description="Load by layer and expert, workers, dispatches, placements.",
    layers=True,
    rows=(
        Row(
            title="Now",
            panels=(
                Panel(
                    title="Expert workers ready",
                    why="With spares. Fewer than wanted: some are missing.",
                    queries=(
                        Query('sum(orrery_controller_workers{state="ready"})', "ready"),
                        Query("sum(orrery_controller_workers_wanted)", "wanted"),
                        Query("sum(orrery_controller_spares)", "spares"),
                    ),
                    kind=Kind.NUMBER,
                ),
                Panel(
                    title="Experts without a live copy",
                    why="Rows that need one of them are parked until it is loaded somewhere.",
                    queries=(Query("sum(orrery_controller_experts_without_owner)"),),
                    kind=Kind.NUMBER,
                    width=4,
                    red_from=1,
                ),
                Panel(
                    title="Workers with an open breaker",
                    why="Routers ask others first, or them not at all, until canaries are right.",
                    queries=(
                        Query(
                            "count(max by (worker) "
                            '(orrery_router_breaker_state{state!="closed"}) > 0) or vector(0)'
                        ),
                    ),
                    kind=Kind.NUMBER,
                    width=4,
                    red_from=1,
                ),
                Panel(
                    title="Messages a second whose rows went elsewhere",
                    why="Failovers of all workers and reasons.",
                    queries=(
                        Query(
                            "sum(rate(orrery_router_failovers_total[$__rate_interval]))"
                            " or vector(0)"
                        ),
                    ),
                    kind=Kind.NUMBER,
                    width=4,
                ),
                Panel(
                    title="Experts are moving",
                    why="1 during a change of the placement; requests go on.",
                    queries=(Query("max(orrery_controller_changing)"),),
                    kind=Kind.NUMBER,
                    width=4,
                ),
            ),
        ),
        Row(
            title="Load of the experts",
            panels=(
                Panel(
                    title="Layer x expert",
                    why="An expert's load over the mean of its layer; 1 is even. Rows are experts.",
                    queries=(Query(f"{_LOAD} / on (layer) group_left avg by (layer) ({_LOAD})"),),
                    kind=Kind.MATRIX,
                    width=12,
                ),
                Panel(
                    title="Experts of layer $layer over time",
                    why="Expert-token pairs a second; one row an expert.",
                    queries=(
                        Query(
                            f"sum by (expert) "
                            f'(rate({expert_page.NAME}{{layer="$layer"}}[$__rate_interval]))',
                            "{{expert}}",
                        ),
                    ),
                    kind=Kind.ROWS,
                    width=12,
                ),
                Panel(
                    title="Balancedness",
                    why="Mean load over maximum load of a layer's experts; 1 is perfect.",
                    queries=(
                        Query("min by (layer) (orrery_router_balancedness_ratio)", "{{layer}}"),
                    ),
                    unit="percentunit",
                    red_below=0.1,
                ),
                Panel(
                    title="Expert-token pairs dispatched",
                    why="By layer; all layers get the same unless rows are parked.",
                    queries=(rate("orrery_router_expert_tokens_total", "layer"),),
                ),
                Panel(
                    title="Copies of an expert",
                    why="Physical experts over logical ones; below 1 some have no owner.",
                    queries=(
                        Query(
                            "sum by (layer) (orrery_worker_experts_held) / "
                            f"count by (layer) (sum by (layer, expert) ({expert_page.NAME}))",
                            "{{layer}}",
                        ),
                    ),
                    red_below=1,
                ),
            ),
        ),
        Row(
            title="Workers",
            panels=(
                Panel(
                    title="Expert-token pairs computed",
                    why="By worker.",
                    queries=(rate("orrery_worker_expert_tokens_total", "id"),),
                ),
                Panel(
                    title="Physical experts held",
                    why="By worker.",
                    queries=(Query("sum by (id) (orrery_worker_experts_held)", "{{id}}"),),
                ),
                Panel(
                    title="Memory of expert weights",
                    why="By worker.",
                    queries=(Query("sum by (id) (orrery_worker_memory_bytes)", "{{id}}"),),
                    unit="bytes",
                ),
                Panel(
                    title="One feed-forward",
                    why="A grouped one of one layer, p99, by worker.",
                    queries=quantiles("orrery_worker_ffn_seconds", 0.99, by="id"),
                    unit="s",
                ),
                Panel(
                    title="In a worker's queue",
                    why="From a message's arrival to the start of its feed-forward, p99.",
                    queries=quantiles("orrery_worker_queue_seconds", 0.99, by="id"),
                    unit="s",
                ),
                Panel(
                    title="Rows a feed-forward",
                    why="Of all routers together; the more, the better weights are used.",
                    queries=(mean("orrery_worker_batch_rows", "id"),),
                ),
            ),
        ),
        Row(
            title="Dispatch",
            panels=(
                Panel(
                    title="Dispatch and back, p50",
                    why="From a message's send to its reply, by worker.",
                    queries=quantiles("orrery_router_dispatch_seconds", 0.5, by="worker"),
                    unit="s",
                ),
                Panel(
                    title="Dispatch and back, p99",
                    why="From a message's send to its reply, by worker.",
                    queries=quantiles("orrery_router_dispatch_seconds", 0.99, by="worker"),
                    unit="s",
                ),
                Panel(
                    title="Stragglers",
                    why="Mean dispatch time over the middle worker's; 3 raises an alert.",
                    queries=(Query("worker:dispatch_seconds:over_median", "{{worker}}"),),
                    red_from=3,
                ),
                Panel(
                    title="Bytes",
                    why="Of dispatch frames, by worker and direction.",
                    queries=(rate("orrery_router_dispatch_bytes_total", "worker, direction"),),
                    unit="Bps",
                ),
                Panel(
                    title="Failed dispatches",
                    why="Each goes to another owner or parks its rows. By worker and error.",
                    queries=(rate("orrery_router_dispatch_errors_total", "worker, code"),),
                ),
                Panel(
                    title="Carriers",
                    why="How rows travel, by worker: inline in gRPC, or a socket of the same host.",
                    queries=(
                        Query(
                            "sum by (worker, carrier) (orrery_router_dispatch_carrier)",
                            "{{worker}} {{carrier}}",
                        ),
                    ),
                ),
                Panel(
                    title="Frames refused by workers",
                    why="By worker and error; not zero means a fault of ours.",
                    queries=(rate("orrery_worker_bad_frames_total", "id, code"),),
                ),
            ),
        ),
        FAILOVER,
        Row(
            title="Placement",
            panels=(
                Panel(
                    title="Workers by state",
                    why="As the controller sees them.",
                    queries=(Query("sum by (state) (orrery_controller_workers)", "{{state}}"),),
                    kind=Kind.STACKED,
                ),
                Panel(
                    title="Epoch",
                    why="The controller's and each router's; routers follow within a second.",
                    queries=(
                        Query("orrery_controller_epoch", "controller {{part}}"),
                        Query("orrery_router_epoch", "{{id}} {{part}}"),
                    ),
                ),
                Panel(
                    title="Changes of the placement",
                    why="Carried through in fifteen minutes, by reason.",
                    queries=(
                        Query(
                            "sum by (reason) "
                            "(increase(orrery_controller_change_seconds_count[15m]))",
                            "{{reason}}",
                        ),
                    ),
                ),
                Panel(
                    title="Events",
                    why="In fifteen minutes, by kind; `orrery events` has their texts.",
                    queries=(
                        Query(
                            "sum by (kind) (increase(orrery_controller_events_total[15m]))",
                            "{{kind}}",
                        ),
                    ),
                ),
                Panel(
                    title="Time without a live copy",
                    why="From the loss of some expert's last copy until every one had one, p99.",
                    queries=(
                        Query(
                            "histogram_quantile(0.99, sum by (le) "
                            "(increase(orrery_controller_recovery_seconds_bucket[15m])))",
                            "p99",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    title="Processes started again",
                    why="After a failure, by role.",
                    queries=(
                        Query(
                            "sum by (role) (increase(orrery_controller_restarts_total[15m]))",
                            "{{role}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
