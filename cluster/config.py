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
PLACEMENT = re.compile(r"auto|expert-major|layer-major|[1-9]\d*x[1-9]\d*|[1-9]\d*(\+[1-9]\d*)+")

_DAY_S = 86400.0


def _number(default: float, *, least: float, most: float | None = None) -> Any:
    return field(default=default, metadata={"least": least, "most": most})


def _text(default: str, *, pattern: re.Pattern[str], wanted: str) -> Any:
    return field(default=default, metadata={"pattern": pattern, "wanted": wanted})


def _choice(default: str, *options: str) -> Any:
    pattern = re.compile("|".join(re.escape(option) for option in options))
    return _text(default, pattern=pattern, wanted=f"one of {', '.join(options)}")


def _device() -> Any:
    return _text("cpu", pattern=DEVICE, wanted="cpu, cuda or cuda:N")


def _host(default: str) -> Any:
    return _text(default, pattern=HOST, wanted="an IPv4 address or a host name")


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
    router that is ready, at its start and when it has lost one."""

    replicas: int = _number(1, least=1, most=64)
    router_wait_s: float = _number(10.0, least=0.1, most=3600)


@dataclass(frozen=True, kw_only=True)
class RouterSection:
    """kv_blocks: blocks of 64 tokens in each router's KV cache. prefill_chunk: rows of prompts in
    one step. micro_batches: forwards in flight. max_model_len: prompt + output; 0: the model's.
    gpus: share of a GPU that Ray reserves for each on device cuda; 0: any, shared freely.
    timeout_s: of a whole request. park_timeout_s: of its wait for an expert that no worker holds.
    """

    replicas: int = _number(1, least=1, most=1024)
    threads: int = _number(1, least=1, most=1024)
    device: str = _device()
    dtype: str = _dtype()
    gpus: float = _number(0.0, least=0)
    max_running: int = _number(32, least=1)
    max_waiting: int = _number(256, least=0)
    kv_blocks: int = _number(512, least=1)
    prefill_chunk: int = _number(256, least=1)
    micro_batches: int = _number(2, least=1, most=64)
    max_model_len: int = _number(0, least=0)
    prefix_cache: bool = True
    timeout_s: float = _number(600.0, least=1, most=_DAY_S)
    park_timeout_s: float = _number(60.0, least=0.1, most=_DAY_S)


@dataclass(frozen=True, kw_only=True)
class ExpertsSection:
    """placement: `auto` lets the planner choose; a grid is GxS (G layer groups of S workers that
    share each layer's experts) or sizes such as 2+1. memory_gb: of each worker; 0: no limit. gpus:
    as in `router`.
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
    memory_gb: float = _number(0.0, least=0)


@dataclass(frozen=True, kw_only=True)
class PlannerSection:
    """What the cost model believes. message_us, latency_us and expert_gbps were measured between
    processes of one 2-core machine with nano-K2; the other defaults are estimates.

    rows: tokens in a decode step. message_us: router processor time a message.
    latency_us: round trip of an empty one. router_us: the router's own part of one layer of one
    micro-batch. link_gbps: gigabits/s at the router. expert_gbps: gigabytes/s at which a worker
    goes through weights.
    """

    rows: int = _number(16, least=1)
    message_us: float = _number(200.0, least=0)
    latency_us: float = _number(450.0, least=0)
    router_us: float = _number(1000.0, least=0)
    link_gbps: float = _number(10.0, least=0.001)
    expert_gbps: float = _number(3.0, least=0.001)


@dataclass(frozen=True, kw_only=True)
class ControllerSection:
    """port: of /status, /placement, /sd and /metrics; 0: a free one, another one after a restart.
    misses: unanswered health
    checks in a row after which a process is replaced."""

    host: str = _host("127.0.0.1")
    port: int = _number(0, least=0, most=65535)
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
    planner: PlannerSection = PlannerSection()
    controller: ControllerSection = ControllerSection()
    ray: RaySection = RaySection()
    metrics: MetricsSection = MetricsSection()
    exactness: str = _choice("strict", "strict", "relaxed")
