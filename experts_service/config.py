"""How an expert worker is set up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kimi_k2.errors import ConfigError
from wire.carriers.carrier import CarrierChoice


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """One expert worker process.

    worker_id: its name in placements.
    model: checkpoint directory.
    listen, metrics_listen: host:port; port 0 takes a free one.
    experts: layer to the logical experts to load at start; may be empty.
    device: "cpu", "cuda", "cuda:1" ...
    dtype: activation dtype, "auto" | "float32" | "bfloat16".
    threads: of the arithmetic on CPU.
    carrier: "inline" offers routers nothing beside the gRPC stream; else those of the same host are
        offered a local socket. Which of the two is used is their choice.
    polite: the checkpoint is opened and the first experts are read by a thread that leaves the
        processors to others, see `wire.polite`.
    max_batch_rows: rows that one grouped feed-forward takes at most, but always one request.
    """

    worker_id: str
    model: Path
    listen: str = "127.0.0.1:0"
    experts: Mapping[int, Sequence[int]]
    device: str = "cpu"
    dtype: str = "auto"
    threads: int = 1
    metrics_listen: str = "127.0.0.1:0"
    max_batch_rows: int = 4096
    carrier: CarrierChoice = "auto"
    polite: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError naming a value with which no worker could run."""
        if not self.worker_id:
            raise ConfigError("worker_id must not be empty")
        if self.threads < 1 or self.max_batch_rows < 1:
            raise ConfigError("threads and max_batch_rows must be at least 1")
