"""The cluster's config: small frozen sections that compose, each field documented where it is.

A YAML file holds any subset of these keys; what is absent keeps its default, and the defaults
alone serve the embedded model (1 router, 4 expert workers, HTTP on 127.0.0.1:8000).
`cluster/example.yaml` shows every key. `cluster.config_reader` turns text into these values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

DEVICE = re.compile(r"cpu|cuda(:\d+)?")
# An IPv6 address would be ambiguous before a port, and Ray Serve does not bracket it.
HOST = re.compile(r"[^\s:/\[\]]+")
NODES = re.compile(r"|[\w./-]+=[\w.-]+")
PLACEMENT = re.compile(r"auto|expert-major|layer-major|[1-9]\d*x[1-9]\d*|[1-9]\d*(\+[1-9]\d*)+")

_DAY_S = 86400.0


def _number(default: float, *, least: float, most: float | None = None) -> Any:
    return field(default=default, metadata={"least": least, "most": most})


def _text(default: str, *, pattern: re.Pattern[str], wanted: str) -> Any:
    return field(default=default, metadata={"pattern": pattern, "wanted": wanted})


def _choice(default: str, *options: str) -> Any:
    pattern = re.compile("|".join(re.escape(option) for option in options))
    return _text(default, pattern=pattern, wanted=f"one of {', '.join(options)}")


def _count_or(default: int, word: str) -> Any:
    return field(
        default=default,
        metadata={
            "least": 0,
            "most": None,
            "pattern": re.compile(re.escape(word)),
            "wanted": f"a whole number or {word}",
        },
    )


def _device() -> Any:
    return _text("cpu", pattern=DEVICE, wanted="cpu, cuda or cuda:N")


def _host(default: str) -> Any:
    return _text(default, pattern=HOST, wanted="an IPv4 address or a host name")


def _port() -> Any:
    return _number(0, least=0, most=65535)


def _nodes() -> Any:
    return _text("", pattern=NODES, wanted="a label of Ray's nodes such as zone=a, or empty")


def _dtype() -> Any:
    return _choice("auto", "auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """path: a Hugging Face directory; empty: the embedded nano-K2. name: in the API; empty: the
    directory's name."""

    path: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class HttpSection:
    """Where the OpenAI-compatible API listens."""

    host: str = _host("127.0.0.1")
    port: int = _number(8000, least=1, most=65535)


@dataclass(frozen=True, kw_only=True)
class GatewaySection:
    """replicas: HTTP processes behind the one port. router_wait_s: how long a request waits for a
    router that is ready, at its start and when it has lost one. drain_s: how long a replica that
    is to end finishes the answers that it has begun; `orrery stop` waits for it. nodes,
    metrics_port: as in `router`."""

    replicas: int = _number(1, least=1, most=64)
    router_wait_s: float = _number(60.0, least=0.1, most=3600)
    drain_s: float = _number(5.0, least=0.1, most=_DAY_S)
    nodes: str = _nodes()
    metrics_port: int = _port()


@dataclass(frozen=True, kw_only=True)
class DispatchSection:
    """When a router asks other expert workers than it has asked at first; no bit depends on it.

    deadline_s: after which an unanswered message has failed. late_factor, late_quantile: after
    `late_factor` times this quantile of recent latencies it is late, and other owners are asked
    too, if there are some. late_min_s, late_max_s: bounds of that time. open_after: late messages
    in a row after which others are preferred. slow_factor: so many times slower than others, a
    worker is not preferred either. hedge_fraction: of the messages that may go to a second owner
    before they are late, after the `hedge_quantile`; 0: none. canary_s: between canaries to each
    worker; 0: only where there is doubt about one.
    """

    deadline_s: float = _number(10.0, least=0.1, most=_DAY_S)
    late_factor: float = _number(4.0, least=1)
    late_quantile: float = _number(0.95, least=0.01, most=0.99)
    late_min_s: float = _number(0.05, least=0.001, most=60)
    late_max_s: float = _number(1.0, least=0.001, most=_DAY_S)
    open_after: int = _number(3, least=1)
    slow_factor: float = _number(4.0, least=1)
    hedge_fraction: float = _number(0.0, least=0, most=1)
    hedge_quantile: float = _number(0.95, least=0.01, most=0.99)
    canary_s: float = _number(5.0, least=0, most=_DAY_S)


@dataclass(frozen=True, kw_only=True)
class RouterSection:
    """kv_blocks: blocks of 64 tokens in each router's KV cache. prefill_chunk: rows of prompts in
    one step. micro_batches: forwards in flight; 0: the planner chooses. max_model_len: prompt +
    output; 0: the model's. threads: of each one's arithmetic; 0: one for each processor, up to 4,
    of which Ray reserves one.
    gpus: share of a GPU that Ray reserves for each on device cuda; 0: any, shared freely.
    timeout_s: of a whole request. park_timeout_s: of its wait for an expert that no worker holds.
    nodes: the label (`key=value`) that its Ray nodes bear; empty: any node. port, metrics_port: of
    gRPC and of /metrics; 0: free ones, else one process of this kind on a node.
    """

    replicas: int = _number(1, least=1, most=1024)
    threads: int = _number(0, least=0, most=1024)
    device: str = _device()
    dtype: str = _dtype()
    gpus: float = _number(0.0, least=0)
    max_running: int = _number(32, least=1)
    max_waiting: int = _number(256, least=0)
    kv_blocks: int = _number(512, least=1)
    prefill_chunk: int = _number(256, least=1)
    micro_batches: int = _number(0, least=0, most=64)
    max_model_len: int = _number(0, least=0)
    prefix_cache: bool = True
    timeout_s: float = _number(600.0, least=1, most=_DAY_S)
    park_timeout_s: float = _number(60.0, least=0.1, most=_DAY_S)
    nodes: str = _nodes()
    port: int = _port()
    metrics_port: int = _port()
    dispatch: DispatchSection = DispatchSection()


@dataclass(frozen=True, kw_only=True)
class AutoscaleSection:
    """How many expert workers there are, by load. max: 0: as many as `experts.workers` says or
    `orrery scale` asks for. target: part of its time that a worker should compute. down_after_s:
    so long fewer must have been enough."""

    min: int = _number(1, least=1, most=4096)
    max: int = _number(0, least=0, most=4096)
    target: float = _number(0.6, least=0.01, most=1)
    down_after_s: float = _number(300.0, least=1, most=_DAY_S)


@dataclass(frozen=True, kw_only=True)
class ExpertsSection:
    """placement: `auto` lets the planner choose; a grid is GxS (G layer groups of S workers that
    share each layer's experts) or sizes such as 2+1. memory_gb: of each worker; 0: no limit. gpus,
    nodes, port, metrics_port: as in `router`. redundant_experts: copies in each layer besides the
    first ones, or `twice`: two of every expert. spares: further workers that stand by, imported and
    ready, to take the place of one that is lost. carrier: of rows between routers and workers:
    `inline` in the gRPC stream, `local` by a socket of the host that both are on, `auto` local
    where that is possible.
    """

    workers: int = _number(4, least=1, most=4096)
    threads: int = _number(1, least=1, most=1024)
    device: str = _device()
    dtype: str = _dtype()
    gpus: float = _number(0.0, least=0)
    placement: str = _text(
        "auto",
        pattern=PLACEMENT,
        wanted="auto, expert-major, layer-major, a grid such as 2x2, or sizes such as 2+1",
    )
    redundant_experts: int | str = _count_or(0, "twice")
    spares: int = _number(1, least=0, most=64)
    memory_gb: float = _number(0.0, least=0)
    carrier: str = _choice("auto", "auto", "inline", "local")
    nodes: str = _nodes()
    port: int = _port()
    metrics_port: int = _port()
    autoscale: AutoscaleSection = AutoscaleSection()


@dataclass(frozen=True, kw_only=True)
class RebalanceSection:
    """enabled: move experts by their load. interval_s: between looks at it. window_s: over which
    it counts. hysteresis: gain in balancedness below which a layer is left alone. max_load_gb:
    weights that may be loaded at a time; 0: any. drain_s: from when every router knows that an
    expert has moved until its old copy is dropped."""

    enabled: bool = True
    interval_s: float = _number(60.0, least=0.1, most=_DAY_S)
    window_s: float = _number(300.0, least=0.1, most=_DAY_S)
    hysteresis: float = _number(0.03, least=0, most=1)
    max_load_gb: float = _number(4.0, least=0)
    drain_s: float = _number(0.5, least=0, most=3600)


@dataclass(frozen=True, kw_only=True)
class PlannerSection:
    """What the cost model believes: measured between processes of one machine with 2 cores, with
    nano-K2. `python -m benchmarks.calibrate` prints this section for another machine or model.

    rows: tokens in a decode step. cores: processors that router and workers share; 0: all of this
    machine when Orrery starts its own Ray cluster, else one each.
    router_us, router_row_us: the router's own part of one layer of one micro-batch, and what each
    row adds to it. message_us, moved_us: its processor time a message, and a row sent or received.
    worker_message_us, worker_moved_us: the same of a worker. latency_us: of a message and its
    answer, besides processor time. link_gbps: gigabits/s at the router. expert_gbps: gigabytes/s
    at which a worker goes through weights.
    """

    rows: int = _number(32, least=1)
    cores: int = _number(0, least=0)
    router_us: float = _number(250.0, least=0)
    router_row_us: float = _number(48.0, least=0)
    message_us: float = _number(120.0, least=0)
    moved_us: float = _number(1.4, least=0)
    worker_message_us: float = _number(210.0, least=0)
    worker_moved_us: float = _number(0.1, least=0)
    latency_us: float = _number(100.0, least=0)
    link_gbps: float = _number(10.0, least=0.001)
    expert_gbps: float = _number(4.0, least=0.001)


@dataclass(frozen=True, kw_only=True)
class ControllerSection:
    """port: of /status, /placement, /events, /sd and /metrics; 0: a free one, another one after a
    restart. misses: unanswered health checks in a row after which a process is replaced."""

    host: str = _host("127.0.0.1")
    port: int = _port()
    health_interval_s: float = _number(0.5, least=0.05, most=60)
    health_timeout_s: float = _number(2.0, least=0.05, most=60)
    misses: int = _number(5, least=1, most=1000)
    start_timeout_s: float = _number(300.0, least=1)


@dataclass(frozen=True, kw_only=True)
class RaySection:
    """address: of a running Ray cluster to join (`auto` finds this machine's); empty: start a
    private one that ends with this command. listen: address that our processes bind; `auto` is
    127.0.0.1 on a private cluster and 0.0.0.0 on one that is joined."""

    address: str = ""
    listen: str = _host("auto")


@dataclass(frozen=True, kw_only=True)
class MetricsSection:
    """host: where every process binds its own /metrics port; `auto` as in `ray.listen`."""

    host: str = _host("auto")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """All of it. exactness: `strict` keeps replicas of an expert on machines whose arithmetic is
    bit for bit alike."""

    model: ModelSection = ModelSection()
    http: HttpSection = HttpSection()
    gateway: GatewaySection = GatewaySection()
    router: RouterSection = RouterSection()
    experts: ExpertsSection = ExpertsSection()
    rebalance: RebalanceSection = RebalanceSection()
    planner: PlannerSection = PlannerSection()
    controller: ControllerSection = ControllerSection()
    ray: RaySection = RaySection()
    metrics: MetricsSection = MetricsSection()
    exactness: str = _choice("strict", "strict", "relaxed")
