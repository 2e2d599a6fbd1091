"""How a checkpoint stores its routed experts, read from `quantization_config`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kimi_k2.errors import ConfigError


class ExpertFormat(enum.StrEnum):
    """Names of stored formats; `kimi_k2.expert_formats` says which of them have a reader."""

    PACK_QUANTIZED = "pack-quantized"
    FP8_BLOCK = "fp8-block"


@dataclass(frozen=True, kw_only=True)
class ExpertQuantization:
    """Symmetric weight quantization.

    num_bits: bits a weight.
    group: (rows, columns) of weights that share one scale: (1, 32) for K2's INT4,
        (128, 128) for FP8 blocks.
    """

    format: ExpertFormat
    num_bits: int
    group: tuple[int, int]

    @classmethod
    def from_config(cls, raw: Any) -> ExpertQuantization | None:
        """Parses `quantization_config`; None if there is none.

        Raises:
            ConfigError: the scheme is not one of K2's.
        """
        if raw is None:
            return None
        if not isinstance(raw, dict):
            raise ConfigError(f"config.json: quantization_config must be an object, not {raw!r}")
        method = raw.get("quant_method")
        if method == "fp8":
            return cls(
                format=ExpertFormat.FP8_BLOCK,
                num_bits=8,
                group=_block_size(raw.get("weight_block_size")),
            )
        if method == "compressed-tensors":
            return _pack_quantized(raw)
        raise ConfigError(
            f"config.json: quantization method {method!r} is not served, only"
            " 'compressed-tensors' (pack-quantized INT4) and 'fp8'"
        )


def _block_size(raw: Any) -> tuple[int, int]:
    match raw:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
    raise ConfigError(f"config.json: weight_block_size must be two sizes, not {raw!r}")


def _pack_quantized(raw: Mapping[str, Any]) -> ExpertQuantization:
    _refuse_more_than_one_group(raw.get("config_groups"))
    match raw:
        case {
            "format": ExpertFormat.PACK_QUANTIZED.value,
            "config_groups": {
                "group_0": {
                    "weights": {
                        "num_bits": 4,
                        "type": "int",
                        "symmetric": True,
                        "strategy": "group",
                        "group_size": int(group_size),
                    } as weights
                }
            },
        } if group_size > 0 and group_size % 8 == 0:
            _refuse_other_orders(weights)
            return ExpertQuantization(
                format=ExpertFormat.PACK_QUANTIZED, num_bits=4, group=(1, group_size)
            )
    raise ConfigError(
        "config.json: of compressed-tensors only format 'pack-quantized' with symmetric 4-bit"
        " integer weights in groups of a multiple of 8 is served"
    )


def _refuse_more_than_one_group(groups: Any) -> None:
    if isinstance(groups, dict) and len(groups) > 1:
        raise ConfigError(
            f"config.json: config_groups has {', '.join(map(repr, sorted(groups)))}: a checkpoint"
            " whose weights are quantized in more than one way is not served, only one group"
        )


def _refuse_other_orders(weights: Mapping[str, Any]) -> None:
    """With an order of activations a weight's scale is not found by its place."""
    if weights.get("actorder"):
        raise ConfigError(
            f"config.json: actorder {weights['actorder']!r} is not served: groups must be made of"
            " adjacent weights"
        )
