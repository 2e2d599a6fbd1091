"""How a router is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from router_service.dispatch_options import DispatchOptions
from wire.carriers.carrier import CarrierChoice


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Limits of the engine; none of them changes a single bit of what a request gets.

    max_running: requests that hold KV blocks at a time.
    max_waiting: requests that may queue behind them; further ones are refused as overloaded.
    kv_blocks: blocks of 64 tokens in the KV cache.
    prefill_chunk: most prompt tokens in one micro-batch.
    attention_budget: prompt tokens times the tokens before them, in one micro-batch, so that the
        chunks of a long prompt do not take longer than those of a short one.
    micro_batches: micro-batches in flight at a time.
    min_micro_rows: decoding requests that are not worth splitting between micro-batches.
    max_model_len: positions that prompt and output may fill together; None: what the model was
        made for, or what the KV cache holds if that is less.
    prefix_cache: keep full blocks for requests that begin alike.
    park_timeout_s: seconds that a request waits for an expert without a live copy.
    park_poll_s: seconds between looks at liveness, besides the notices of the dispatcher.
    timeout_s: seconds after which a request ends if it names no bound of its own.
    """

    max_running: int = 64
    max_waiting: int = 256
    kv_blocks: int = 1024
    prefill_chunk: int = 256
    attention_budget: int = 1 << 20
    micro_batches: int = 2
    min_micro_rows: int = 8
    max_model_len: int | None = None
    prefix_cache: bool = True
    park_timeout_s: float = 60.0
    park_poll_s: float = 0.25
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        """Raises ValueError naming a limit with which nothing could ever run."""
        whole = ("max_running", "kv_blocks", "prefill_chunk", "micro_batches", "min_micro_rows")
        for name in (*whole, "attention_budget"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.max_waiting < 0:
            raise ValueError(f"max_waiting must not be negative, but is {self.max_waiting}")
        if self.max_model_len is not None and self.max_model_len < 2:
            raise ValueError(f"max_model_len must be at least 2, not {self.max_model_len}")
        for name in ("park_timeout_s", "park_poll_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class RouterConfig(EngineConfig):
    """One router process.

    model: checkpoint directory.
    listen, metrics_listen: host:port; port 0 takes a free one.
    dtype: activation dtype, or "auto".
    threads: CPU threads of the arithmetic; None: one for each processor, up to 4.
    experts: "remote" dispatches to expert workers, "local" computes them in this process.
    carrier: of dispatch messages, see `DispatchOptions`, whose own `carrier` is not used.
    dispatch: when other expert workers are asked.
    polite: the model is loaded by a thread that leaves the processors to others, see `wire.polite`.
    """

    router_id: str = "router-0"
    model: Path = field()
    listen: str = "127.0.0.1:0"
    metrics_listen: str = "127.0.0.1:0"
    device: str = "cpu"
    dtype: str = "auto"
    threads: int | None = None
    experts: Literal["remote", "local"] = "remote"
    carrier: CarrierChoice = "auto"
    dispatch: DispatchOptions = field(default_factory=DispatchOptions)
    polite: bool = False
