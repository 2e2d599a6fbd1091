"""Recorded loads of experts, as `models/nano-k2/expert_loads.json` has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import ConfigError
from kimi_k2.config import ModelConfig


def read_loads(path: Path, model: ModelConfig, domains: Sequence[str]) -> dict[int, list[float]]:
    """Layer to the tokens of each logical expert, those of the domains added up.

    Args:
        domains: of the file; none: all of them.

    Raises:
        ConfigError: the file is not one of loads, is of another model, or has no such domain.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        layers, loads = [int(layer) for layer in content["layers"]], dict(content["loads"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} holds no loads of experts: {error!r}") from error
    if tuple(layers) != tuple(model.moe_layers):
        raise ConfigError(
            f"{path} holds loads of the layers {layers}, "
            f"the model routes in {list(model.moe_layers)}"
        )
    if unknown := set(domains) - loads.keys():
        raise ConfigError(
            f"{path} has no domain {', '.join(sorted(unknown))}, but {', '.join(sorted(loads))}"
        )
    chosen = {name: _rows(path, name, loads, model) for name in domains or loads}
    return {
        layer: [sum(counts) for counts in zip(*(rows[n] for rows in chosen.values()), strict=True)]
        for n, layer in enumerate(layers)
    }


def _rows(path: Path, name: str, loads: Mapping[str, Any], model: ModelConfig) -> list[list[float]]:
    rows = loads[name]
    if not (
        isinstance(rows, list)
        and len(rows) == len(model.moe_layers)
        and all(isinstance(row, list) and len(row) == model.n_routed_experts for row in rows)
        and all(isinstance(n, int | float) and 0 <= n < 1e300 for row in rows for n in row)
    ):
        raise ConfigError(
            f"{path}: the loads of {name} are not {len(model.moe_layers)} layers of "
            f"{model.n_routed_experts} numbers from 0"
        )
    return rows
