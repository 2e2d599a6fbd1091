"""Every metric of every process, declared once.

One class a role, one instance a process, each on the registry it is given, so that a test or two
services in one process never share a series. Names carry the unit; counters end in `_total` when
scraped. `docs/metrics.md` is made from these declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from monitoring.deferred import Deferred

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
        self.deferred = Deferred(registry)
        declare = _Declarations(registry)
        self.ttft = declare.histogram(
            "orrery_router_ttft_seconds",
            "From a request's arrival at the router to its first token.",
            FIRST_TOKEN_SECONDS,
        )
        self.itl = declare.histogram(
            "orrery_router_itl_seconds",
            "Between consecutive tokens of one request (inter-token latency).",
            TOKEN_SECONDS,
        )
        self.e2e = declare.histogram(
            "orrery_router_e2e_seconds",
            "From a request's arrival at the router to its end.",
            REQUEST_SECONDS,
        )
        self.queue_time = declare.histogram(
            "orrery_router_queue_seconds",
            "From a request's arrival at the router to its first scheduled row.",
            QUEUE_SECONDS,
        )
        self.running = declare.gauge(
            "orrery_router_running_requests", "Requests that hold KV blocks."
        )
        self.waiting = declare.gauge("orrery_router_waiting_requests", "Requests not admitted yet.")
        self.parked = declare.gauge(
            "orrery_router_parked_requests",
            "Running requests that wait for an expert without a live copy.",
        )
        self.requests = declare.counter(
            "orrery_router_requests", "Requests that ended, by finish reason.", "finish_reason"
        )
        self.prompt_tokens = declare.counter(
            "orrery_router_prompt_tokens", "Prompt tokens of admitted requests."
        )
        self.generated_tokens = declare.counter(
            "orrery_router_generated_tokens", "Tokens sampled and delivered."
        )
        self.kv_blocks = declare.gauge(
            "orrery_router_kv_blocks",
            "KV blocks by state: used by a request, cached for reuse, or free.",
            "state",
        )
        self.prefix_query_tokens = declare.counter(
            "orrery_router_prefix_query_tokens", "Prompt tokens looked up in the prefix cache."
        )
        self.prefix_hit_tokens = declare.counter(
            "orrery_router_prefix_hit_tokens", "Prompt tokens that the prefix cache already held."
        )
        self.preemptions = declare.counter(
            "orrery_router_preemptions",
            "Requests that gave up their KV blocks to be computed again later.",
        )
        self.step_seconds = declare.histogram(
            "orrery_router_step_seconds",
            "One micro-batch from its start to its sampled tokens.",
            TOKEN_SECONDS,
        )
        self.step_rows = declare.histogram(
            "orrery_router_step_rows", "Rows in a micro-batch.", ROWS
        )
        self.dispatch_seconds = declare.histogram(
            "orrery_router_dispatch_seconds",
            "From a dispatch message's send to its reply, by expert worker.",
            MESSAGE_SECONDS,
            "worker",
        )
        self.dispatch_bytes = declare.counter(
            "orrery_router_dispatch_bytes",
            "Bytes of dispatch frames, by expert worker and direction (sent or received).",
            "worker",
            "direction",
        )
        self.dispatch_errors = declare.counter(
            "orrery_router_dispatch_errors",
            "Dispatch messages that failed, by expert worker and error code.",
            "worker",
            "code",
        )
        self.dispatch_carrier = declare.gauge(
            "orrery_router_dispatch_carrier",
            "1 for the carrier of an expert worker's messages: inline (gRPC) or local (a socket).",
            "worker",
            "carrier",
        )
        self.failovers = declare.counter(
            "orrery_router_failovers",
            "Messages whose rows went elsewhere, or were parked: lost, late, error or garbage.",
            "worker",
            "reason",
        )
        self.stragglers = declare.counter(
            "orrery_router_stragglers", "Dispatch messages late by what is usual.", "worker"
        )
        self.late_answers = declare.counter(
            "orrery_router_late_answers", "Answers discarded: others came first.", "worker"
        )
        self.hedges = declare.counter(
            "orrery_router_hedges",
            "Messages sent to a second worker before they were late, and those that it won.",
            "worker",
            "outcome",
        )
        self.breaker = declare.gauge(
            "orrery_router_breaker_state",
            "1 for the state of an expert worker's circuit breaker: closed, open or half_open.",
            "worker",
            "state",
        )
        self.canaries = declare.counter(
            "orrery_router_canaries",
            "Canary messages, by expert worker and verdict (right, wrong, late or refused).",
            "worker",
            "verdict",
        )
        self.expert_tokens = declare.counter(
            "orrery_router_expert_tokens", "Expert-token pairs dispatched, by layer.", "layer"
        )
        self.balancedness = declare.gauge(
            "orrery_router_balancedness_ratio",
            "Mean load over maximum load of a layer's experts; 1 is perfect.",
            "layer",
        )
        self.request_notes = declare.counter(
            "orrery_router_request_notes",
            "Requests that losses parked, resumed or failed here, by kind as in `orrery events`.",
            "kind",
        )
        self.epoch = declare.epoch("orrery_router_epoch")


class WorkerMetrics:
    """What an expert worker tells of its queue, its arithmetic and its experts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers every worker series; raises ValueError when `registry` holds them already."""
        self.deferred = Deferred(registry)
        declare = _Declarations(registry)
        self.expert_tokens = declare.counter(
            "orrery_worker_expert_tokens", "Expert-token pairs computed, by layer.", "layer"
        )
        self.ffn_seconds = declare.histogram(
            "orrery_worker_ffn_seconds", "One grouped feed-forward of one layer.", MESSAGE_SECONDS
        )
        self.batch_rows = declare.histogram(
            "orrery_worker_batch_rows",
            "Rows of all routers that one grouped feed-forward took.",
            ROWS,
        )
        self.queue_seconds = declare.histogram(
            "orrery_worker_queue_seconds",
            "From a dispatch message's arrival to the start of its feed-forward.",
            MESSAGE_SECONDS,
        )
        self.experts_held = declare.gauge(
            "orrery_worker_experts_held", "Physical experts loaded, by layer.", "layer"
        )
        self.memory_bytes = declare.gauge(
            "orrery_worker_memory_bytes", "Resident bytes of expert weights."
        )
        self.bad_frames = declare.counter(
            "orrery_worker_bad_frames", "Dispatch frames refused, by error code.", "code"
        )
        self.state = declare.gauge(
            "orrery_worker_state",
            "1 for the state that the worker is in, 0 for the others.",
            "state",
        )


class GatewayMetrics:
    """What a gateway replica tells of its HTTP requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers every gateway series; raises ValueError when `registry` holds them already."""
        declare = _Declarations(registry)
        self.http_requests = declare.counter(
            "orrery_gateway_http_requests",
            "HTTP requests answered, by path and status code.",
            "path",
            "code",
        )
        self.open_requests = declare.gauge(
            "orrery_gateway_open_requests", "Requests for answers that are being answered."
        )
        self.open_streams = declare.gauge(
            "orrery_gateway_open_streams", "Event streams open to clients."
        )
        self.request_notes = declare.counter(
            "orrery_gateway_request_notes",
            "Generations that losses of routers moved or failed, by kind as in `orrery events`.",
            "kind",
        )
        self.request_seconds = declare.histogram(
            "orrery_gateway_request_seconds",
            "From an HTTP request's arrival to the last byte of its answer, by path.",
            REQUEST_SECONDS,
            "path",
        )


class ControllerMetrics:
    """What the controller tells of the fleet."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Registers the controller's series; raises ValueError when `registry` holds them."""
        declare = _Declarations(registry)
        self.workers = declare.gauge(
            "orrery_controller_workers", "Expert workers by state.", "state"
        )
        self.routers = declare.gauge("orrery_controller_routers", "Routers by state.", "state")
        self.epoch = declare.epoch("orrery_controller_epoch")
        self.restarts = declare.counter(
            "orrery_controller_restarts",
            "Processes started again after a failure, by role.",
            "role",
        )
        self.wanted = declare.gauge(
            "orrery_controller_workers_wanted", "Expert workers that should hold experts."
        )
        self.spares = declare.gauge(
            "orrery_controller_spares", "Expert workers that stand by, ready, with nothing loaded."
        )
        self.without_owner = declare.gauge(
            "orrery_controller_experts_without_owner",
            "Experts without a live copy in the newest placement; rows that need them wait.",
        )
        self.changing = declare.gauge(
            "orrery_controller_changing", "1 while experts move between workers, else 0."
        )
        self.events = declare.counter(
            "orrery_controller_events", "Events, as `orrery events` lists them, by kind.", "kind"
        )
        self.recovery_seconds = declare.histogram(
            "orrery_controller_recovery_seconds",
            "From when some expert had no live copy until every one had one.",
            REQUEST_SECONDS,
        )
        self.change_seconds = declare.histogram(
            "orrery_controller_change_seconds",
            "One change of the placement, by reason: repair, drain, scale, tidy or balance.",
            REQUEST_SECONDS,
            "reason",
        )
        self.copies_loaded = declare.counter(
            "orrery_controller_copies_loaded",
            "Copies of experts loaded by changes that were carried through, by reason.",
            "reason",
        )


def set_state(gauge: Gauge, states: Iterable[str], current: str, **labels: str) -> None:
    """Sets the series of `current` to 1 and those of the other `states` to 0; `labels` are those
    besides `state`."""
    for state in states:
        gauge.labels(**labels, state=state).set(float(state == current))


class _Declarations:
    """Series of one registry, declared in a line each."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self._registry)

    def gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=self._registry)

    def histogram(
        self, name: str, meaning: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        return Histogram(name, meaning, labels, buckets=buckets, registry=self._registry)

    def epoch(self, name: str) -> Gauge:
        return self.gauge(name, "The placement's epoch, by part (term or counter).", "part")
