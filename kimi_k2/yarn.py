"""YaRN: rotary frequencies stretched beyond the trained context (arXiv 2309.00071).

The ramp between extrapolated and interpolated frequencies and the two mscale terms follow
DeepSeek-V3: cos and sin are scaled by their ratio, the softmax by the square of the second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kimi_k2.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class YarnConfig:
    """`rope_scaling` of a checkpoint, under its own names."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float
    beta_slow: float
    mscale: float
    mscale_all_dim: float

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> YarnConfig:
        """Raises ConfigError for a missing or non-positive value."""
        values: dict[str, Any] = {
            "factor": raw.get("factor"),
            "original_max_position_embeddings": raw.get("original_max_position_embeddings"),
            "beta_fast": raw.get("beta_fast") or 32.0,
            "beta_slow": raw.get("beta_slow") or 1.0,
            "mscale": raw.get("mscale") or 0.0,
            "mscale_all_dim": raw.get("mscale_all_dim") or 0.0,
        }
        for name, value in values.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or value < 0 or (value == 0 and not name.startswith("mscale")):
                raise ConfigError(f"config.json: rope_scaling.{name} cannot be {value!r}")
        original = int(values.pop("original_max_position_embeddings"))
        return cls(
            original_max_position_embeddings=original,
            **{name: float(value) for name, value in values.items()},
        )

    @property
    def rotary_scale(self) -> float:
        """What cos and sin are multiplied by."""
        if self.mscale and self.mscale_all_dim:
            return _mscale(self.factor, self.mscale) / _mscale(self.factor, self.mscale_all_dim)
        return _mscale(self.factor, 1.0)

    @property
    def softmax_scale(self) -> float:
        """What the softmax scale is multiplied by."""
        if not self.mscale_all_dim:
            return 1.0
        return _mscale(self.factor, self.mscale_all_dim) ** 2


def inverse_frequencies(dim: int, theta: float, yarn: YarnConfig | None) -> Tensor:
    """Angle per position of each rotated pair: [dim // 2] float32."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    wavelengths = theta**exponents
    if yarn is None:
        return 1.0 / wavelengths
    low, high = _ramp_bounds(dim, theta, yarn)
    ramp = torch.clamp((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low), 0, 1)
    kept = 1 - ramp
    stretched = 1.0 / (yarn.factor * wavelengths)
    return stretched * (1 - kept) + (1.0 / wavelengths) * kept


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _ramp_bounds(dim: int, theta: float, yarn: YarnConfig) -> tuple[float, float]:
    """Pairs that turn more than beta_fast times keep their frequency, below beta_slow none do."""

    def pair_with_turns(turns: float) -> float:
        context = yarn.original_max_position_embeddings
        return dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_with_turns(yarn.beta_fast)), 0)
    high: float = min(math.ceil(pair_with_turns(yarn.beta_slow)), dim - 1)
    if low == high:
        high += 0.001
    return low, high
