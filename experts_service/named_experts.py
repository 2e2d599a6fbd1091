"""The ways to name experts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from kimi_k2.config import ModelConfig
from kimi_k2.errors import ConfigError

_PART = re.compile(r"(\d+):(\d+)(?:-(\d+))?")


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
