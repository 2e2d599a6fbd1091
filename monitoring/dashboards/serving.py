"""What clients get: requests, latencies, queues, the KV cache."""

from __future__ import annotations

from monitoring.dashboards.panel import Board, Kind, Panel, Query, Row, mean, quantiles, rate

SERVING = Board(
    uid="orrery-serving",
    title="Orrery: serving",
    description="Requests, time to first token, gaps between tokens, queues, KV cache, errors.",
    rows=(
        Row(
            title="Now",
            panels=(
                Panel(
                    title="Routers ready",
                    why="None: every request waits, then fails.",
                    queries=(Query('sum(orrery_controller_routers{state="ready"})'),),
                    kind=Kind.NUMBER,
                    width=4,
                    red_below=1,
                ),
                Panel(
                    title="Tokens a second",
                    why="Generated and delivered, by all routers.",
                    queries=(rate("orrery_router_generated_tokens_total"),),
                    kind=Kind.NUMBER,
                    width=4,
                ),
                Panel(
                    title="First token, p99",
                    why="Over five minutes.",
                    queries=(Query("orrery:ttft_seconds:p99_rate5m"),),
                    unit="s",
                    kind=Kind.NUMBER,
                    width=4,
                    red_from=5,
                ),
                Panel(
                    title="Between tokens, p99",
                    why="Over five minutes.",
                    queries=(Query("orrery:itl_seconds:p99_rate5m"),),
                    unit="s",
                    kind=Kind.NUMBER,
                    width=4,
                    red_from=0.5,
                ),
                Panel(
                    title="Server errors",
                    why="Share of HTTP requests answered with a 5xx, over five minutes.",
                    queries=(Query("orrery:http_server_errors:ratio_rate5m"),),
                    unit="percentunit",
                    kind=Kind.NUMBER,
                    width=4,
                    red_from=0.01,
                ),
                Panel(
                    title="Requests parked",
                    why="They wait for experts that no worker holds at the moment.",
                    queries=(Query("sum(orrery_router_parked_requests)"),),
                    kind=Kind.NUMBER,
                    width=4,
                    red_from=1,
                ),
            ),
        ),
        Row(
            title="Requests",
            panels=(
                Panel(
                    title="HTTP requests",
                    why="By path and status code, as the gateways answered them.",
                    queries=(rate("orrery_gateway_http_requests_total", "path, code"),),
                    unit="reqps",
                ),
                Panel(
                    title="Generations ended",
                    why="By finish reason; error and abort should be rare.",
                    queries=(rate("orrery_router_requests_total", "finish_reason"),),
                    unit="reqps",
                ),
                Panel(
                    title="Requests in the routers",
                    why="Running hold KV blocks; waiting are not admitted yet; streams are open.",
                    queries=(
                        Query("sum(orrery_router_running_requests)", "running"),
                        Query("sum(orrery_router_waiting_requests)", "waiting"),
                        Query("sum(orrery_router_parked_requests)", "parked"),
                        Query("sum(orrery_gateway_open_streams)", "open streams"),
                    ),
                ),
                Panel(
                    title="Tokens a second, by kind",
                    why="Prompt tokens of admitted requests, and generated ones.",
                    queries=(
                        rate("orrery_router_prompt_tokens_total", legend="prompt"),
                        rate("orrery_router_generated_tokens_total", legend="generated"),
                    ),
                ),
                Panel(
                    title="Whole HTTP requests",
                    why="From arrival to the last byte, by path.",
                    queries=quantiles("orrery_gateway_request_seconds", 0.5, 0.99, by="path"),
                    unit="s",
                ),
                Panel(
                    title="Whole generations",
                    why="From a request's arrival at the router to its end.",
                    queries=quantiles("orrery_router_e2e_seconds", 0.5, 0.99),
                    unit="s",
                ),
            ),
        ),
        Row(
            title="Latency",
            panels=(
                Panel(
                    title="Time to first token (TTFT)",
                    why="Queue and prompt together; see the queue beside it.",
                    queries=quantiles("orrery_router_ttft_seconds", 0.5, 0.9, 0.99),
                    unit="s",
                ),
                Panel(
                    title="Between tokens (ITL)",
                    why="The pace of a stream. Gaps come from long prompts and lost workers.",
                    queries=quantiles("orrery_router_itl_seconds", 0.5, 0.9, 0.99),
                    unit="s",
                ),
                Panel(
                    title="In the queue",
                    why="From arrival at the router to the first scheduled row.",
                    queries=quantiles("orrery_router_queue_seconds", 0.5, 0.99),
                    unit="s",
                ),
                Panel(
                    title="First tokens, all of them",
                    why="How many took how long.",
                    queries=(
                        Query(
                            "sum by (le) "
                            "(increase(orrery_router_ttft_seconds_bucket[$__rate_interval]))",
                            "{{le}}",
                        ),
                    ),
                    unit="s",
                    kind=Kind.BUCKETS,
                    width=12,
                ),
                Panel(
                    title="Gaps between tokens, all of them",
                    why="How many took how long.",
                    queries=(
                        Query(
                            "sum by (le) "
                            "(increase(orrery_router_itl_seconds_bucket[$__rate_interval]))",
                            "{{le}}",
                        ),
                    ),
                    unit="s",
                    kind=Kind.BUCKETS,
                    width=12,
                ),
            ),
        ),
        Row(
            title="Engine",
            panels=(
                Panel(
                    title="KV blocks",
                    why="Cached ones are given up when running requests need them.",
                    queries=(Query("sum by (state) (orrery_router_kv_blocks)", "{{state}}"),),
                    kind=Kind.STACKED,
                ),
                Panel(
                    title="KV blocks in use",
                    why="At 100% requests are preempted and computed again.",
                    queries=(Query("router:kv_blocks_used:ratio", "{{id}}"),),
                    unit="percentunit",
                    red_from=0.95,
                ),
                Panel(
                    title="Preemptions",
                    why="Requests that gave up their blocks. Lasting: more kv_blocks or routers.",
                    queries=(rate("orrery_router_preemptions_total", "id"),),
                ),
                Panel(
                    title="Prefix cache hits",
                    why="Share of prompt tokens that need no computing.",
                    queries=(Query("orrery:prefix_hits:ratio_rate5m", "hits"),),
                    unit="percentunit",
                ),
                Panel(
                    title="A step of a micro-batch",
                    why="From its start to its sampled tokens.",
                    queries=quantiles("orrery_router_step_seconds", 0.5, 0.99),
                    unit="s",
                ),
                Panel(
                    title="Rows a step",
                    why="Decoding sequences and prompt tokens computed together.",
                    queries=(mean("orrery_router_step_rows"),),
                ),
            ),
        ),
    ),
)
