"""How an expert worker is set up, and the ways to name experts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kimi_k2.config import ModelConfig
from kimi_k2.errors import ConfigError
from wire.carriers.carrier import CarrierChoice

_PART = re.compile(r"(\d+):(\d+)(?:-(\d+))?")


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

    def __post_init__(self) -> None:
        """Raises ConfigError naming a value with which no worker could run."""
        if not self.worker_id:
            raise ConfigError("worker_id must not be empty")
        if self.threads < 1 or self.max_batch_rows < 1:
            raise ConfigError("threads and max_batch_rows must be at least 1")


def parse_experts(spec: str, config: ModelConfig) -> dict[int, tuple[int, ...]]:
    """The experts that a command line names.

    Args:
        spec: "all"; or parts like "1:0-95,2:0-95,3:7" (layer:first-last, inclusive); or the path
            of a JSON file that maps layers to lists of experts.

    Raises:
        ConfigError: not one of these, or a layer or expert that the model does not have.
    """
    if spec == "all":
        return {layer: tuple(range(config.n_routed_experts)) for layer in config.moe_layers}
    experts: dict[int, set[int]] = {}
    if spec.endswith(".json"):
        for layer, ids in _read(Path(spec)).items():
            experts.setdefault(layer, set()).update(ids)
    elif spec:
        for part in spec.split(","):
            layer, ids_of_part = _parse_part(part)
            experts.setdefault(layer, set()).update(ids_of_part)
    check_experts(experts, config)
    return {layer: tuple(sorted(ids)) for layer, ids in sorted(experts.items())}


def check_experts(experts: Mapping[int, Sequence[int] | set[int]], config: ModelConfig) -> None:
    """Raises ConfigError naming a layer or expert that the model does not have."""
    for layer, ids in experts.items():
        if layer not in config.moe_layers:
            raise ConfigError(f"layer {layer} of the model has no routed experts")
        wrong = [e for e in ids if not 0 <= e < config.n_routed_experts]
        if wrong:
            raise ConfigError(
                f"layer {layer} has no expert {wrong[0]}, only 0 to {config.n_routed_experts - 1}"
            )


def _parse_part(part: str) -> tuple[int, range]:
    match = _PART.fullmatch(part.strip())
    if match is None:
        raise ConfigError(
            f"experts {part!r} are not understood: give all, a .json file, or layer:first-last"
        )
    layer, first, last = match.groups()
    return int(layer), range(int(first), int(last or first) + 1)


def _read(path: Path) -> dict[int, list[int]]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {int(layer): [int(e) for e in ids] for layer, ids in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} does not map layers to lists of experts, e.g. {{'1': [0, 1]}}: {error}"
        ) from error
