"""What a gateway replica is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """Settings of one gateway replica.

    model: the checkpoint directory; only its tokenizer, template and configuration are read.
    model_name: the id that requests name; empty: the directory's name.
    max_body_bytes: larger request bodies are refused with 413.
    max_json_depth: deeper JSON is refused with 400.
    max_json_values: JSON of more values is refused with 400; parsing stalls every stream for about
        0.2 s a million, and the longest prompt of token ids has some hundred thousand.
    max_choices: `n` times the number of prompts of one HTTP request.
    request_timeout_s: bound of one generation in the router; 0: the router's default.
    router_wait_s: how long a request waits for a healthy router, and how long a generation that
        lost its router looks for another.
    router_poll_s: pause between two looks at the routers.
    client_stall_s: a client that takes nothing of a stream for so long is taken for gone.
    exact: a generation that lost its router continues only on one with the same numerics.
    metrics_listen: host:port of `/metrics`; port 0 takes a free one; empty: not served.
    """

    model: Path
    model_name: str = ""
    max_body_bytes: int = 32 * 1024 * 1024
    max_json_depth: int = 100
    max_json_values: int = 500_000
    max_choices: int = 128
    request_timeout_s: float = 0.0
    router_wait_s: float = 60.0
    router_poll_s: float = 0.5
    client_stall_s: float = 120.0
    exact: bool = True
    metrics_listen: str = ""

    @property
    def served_name(self) -> str:
        return self.model_name or self.model.resolve().name
