"""Every metric of every process, declared once.

One class a role, one instance a process, each on the registry it is given, so that a test or two
services in one process never share a series. Names carry the unit; counters end in `_total` when
scraped. `docs/metrics.md` is made from these declarations.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 3.5, 5, 10, 20, 60)
TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
QUEUE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
MESSAGE_SECONDS = (
    *(0.0001, 0.0002, 0.0004, 0.0008, 0.0015, 0.003, 0.006, 0.012, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30),
)
ROWS = tuple(float(2**power) for power in range(14))


class RouterMetrics:
    """What a router tells of its engine, its KV cache and its dispatcher."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers every router series; raises ValueError when `registry` holds them already."""
        self.ttft = Histogram(
            "orrery_router_ttft_seconds",
            "From a request's arrival at the router to its first token.",
            registry=registry,
            buckets=FIRST_TOKEN_SECONDS,
        )
        self.itl = Histogram(
            "orrery_router_itl_seconds",
            "Between consecutive tokens of one request (inter-token latency).",
            registry=registry,
            buckets=TOKEN_SECONDS,
        )
        self.e2e = Histogram(
            "orrery_router_e2e_seconds",
            "From a request's arrival at the router to its end.",
            registry=registry,
            buckets=REQUEST_SECONDS,
        )
        self.queue_time = Histogram(
            "orrery_router_queue_seconds",
            "From a request's arrival at the router to its first scheduled row.",
            registry=registry,
            buckets=QUEUE_SECONDS,
        )
        self.running = Gauge(
            "orrery_router_running_requests", "Requests that hold KV blocks.", registry=registry
        )
        self.waiting = Gauge(
            "orrery_router_waiting_requests", "Requests not admitted yet.", registry=registry
        )
        self.parked = Gauge(
            "orrery_router_parked_requests",
            "Running requests that wait for an expert without a live copy.",
            registry=registry,
        )
        self.requests = Counter(
            "orrery_router_requests",
            "Requests that ended, by finish reason.",
            ["finish_reason"],
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "orrery_router_prompt_tokens", "Prompt tokens of admitted requests.", registry=registry
        )
        self.generated_tokens = Counter(
            "orrery_router_generated_tokens", "Tokens sampled and delivered.", registry=registry
        )
        self.kv_blocks = Gauge(
            "orrery_router_kv_blocks",
            "KV blocks by state: used by a request, cached for reuse, or free.",
            ["state"],
            registry=registry,
        )
        self.prefix_query_tokens = Counter(
            "orrery_router_prefix_query_tokens",
            "Prompt tokens looked up in the prefix cache.",
            registry=registry,
        )
        self.prefix_hit_tokens = Counter(
            "orrery_router_prefix_hit_tokens",
            "Prompt tokens that the prefix cache already held.",
            registry=registry,
        )
        self.preemptions = Counter(
            "orrery_router_preemptions",
            "Requests that gave up their KV blocks to be computed again later.",
            registry=registry,
        )
        self.step_seconds = Histogram(
            "orrery_router_step_seconds",
            "One micro-batch from its start to its sampled tokens.",
            registry=registry,
            buckets=TOKEN_SECONDS,
        )
        self.step_rows = Histogram(
            "orrery_router_step_rows", "Rows in a micro-batch.", registry=registry, buckets=ROWS
        )
        self.dispatch_seconds = Histogram(
            "orrery_router_dispatch_seconds",
            "From a dispatch message's send to its reply, by expert worker.",
            ["worker"],
            registry=registry,
            buckets=MESSAGE_SECONDS,
        )
        self.dispatch_bytes = Counter(
            "orrery_router_dispatch_bytes",
            "Bytes of dispatch frames, by expert worker and direction (sent or received).",
            ["worker", "direction"],
            registry=registry,
        )
        self.dispatch_errors = Counter(
            "orrery_router_dispatch_errors",
            "Dispatch messages that failed, by expert worker and error code.",
            ["worker", "code"],
            registry=registry,
        )
        self.expert_tokens = Counter(
            "orrery_router_expert_tokens",
            "Expert-token pairs dispatched, by layer.",
            ["layer"],
            registry=registry,
        )
        self.balancedness = Gauge(
            "orrery_router_balancedness_ratio",
            "Mean load over maximum load of a layer's experts; 1 is perfect.",
            ["layer"],
            registry=registry,
        )
        self.epoch = _epoch("orrery_router_epoch", registry)


class WorkerMetrics:
    """What an expert worker tells of its queue, its arithmetic and its experts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers every worker series; raises ValueError when `registry` holds them already."""
        self.expert_tokens = Counter(
            "orrery_worker_expert_tokens",
            "Expert-token pairs computed, by layer.",
            ["layer"],
            registry=registry,
        )
        self.ffn_seconds = Histogram(
            "orrery_worker_ffn_seconds",
            "One grouped feed-forward of one layer.",
            registry=registry,
            buckets=MESSAGE_SECONDS,
        )
        self.batch_rows = Histogram(
            "orrery_worker_batch_rows",
            "Rows of all routers that one grouped feed-forward took.",
            registry=registry,
            buckets=ROWS,
        )
        self.queue_seconds = Histogram(
            "orrery_worker_queue_seconds",
            "From a dispatch message's arrival to the start of its feed-forward.",
            registry=registry,
            buckets=MESSAGE_SECONDS,
        )
        self.experts_held = Gauge(
            "orrery_worker_experts_held",
            "Physical experts loaded, by layer.",
            ["layer"],
            registry=registry,
        )
        self.memory_bytes = Gauge(
            "orrery_worker_memory_bytes", "Resident bytes of expert weights.", registry=registry
        )
        self.bad_frames = Counter(
            "orrery_worker_bad_frames",
            "Dispatch frames refused, by error code.",
            ["code"],
            registry=registry,
        )
        self.state = Gauge(
            "orrery_worker_state",
            "1 for the state that the worker is in, 0 for the others.",
            ["state"],
            registry=registry,
        )


class GatewayMetrics:
    """What a gateway replica tells of its HTTP requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers every gateway series; raises ValueError when `registry` holds them already."""
        self.http_requests = Counter(
            "orrery_gateway_http_requests",
            "HTTP requests answered, by path and status code.",
            ["path", "code"],
            registry=registry,
        )
        self.open_streams = Gauge(
            "orrery_gateway_open_streams", "Event streams open to clients.", registry=registry
        )
        self.request_seconds = Histogram(
            "orrery_gateway_request_seconds",
            "From an HTTP request's arrival to the last byte of its answer, by path.",
            ["path"],
            registry=registry,
            buckets=REQUEST_SECONDS,
        )


class ControllerMetrics:
    """What the controller tells of the fleet."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers the controller's series; raises ValueError when `registry` holds them."""
        self.workers = Gauge(
            "orrery_controller_workers", "Expert workers by state.", ["state"], registry=registry
        )
        self.routers = Gauge(
            "orrery_controller_routers", "Routers by state.", ["state"], registry=registry
        )
        self.epoch = _epoch("orrery_controller_epoch", registry)
        self.restarts = Counter(
            "orrery_controller_restarts",
            "Processes started again after a failure, by role.",
            ["role"],
            registry=registry,
        )


def set_state(gauge: Gauge, states: Iterable[str], current: str) -> None:
    """Sets the series of `current` to 1 and those of the other `states` to 0."""
    for state in states:
        gauge.labels(state=state).set(float(state == current))


def _epoch(name: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(
        name, "The placement's epoch, by part (term or counter).", ["part"], registry=registry
    )
