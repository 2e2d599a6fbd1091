"""How many bytes an expert takes, told from the configuration alone."""

from __future__ import annotations

from kimi_k2.config import ModelConfig
from kimi_k2.quantization import ExpertFormat

LANES = 16
"""Columns that the kernels for INT4 take at once."""
_SCALE_BYTES = 2


def expert_nbytes(config: ModelConfig, dtype_bytes: int, compiled: bool) -> int:
    """Bytes of one routed expert as a worker holds it, which is also what it reads to use it.

    An estimate where `compiled` is: a machine whose kernels give other bits than its library
    holds the activation dtype.

    Args:
        dtype_bytes: of the activation dtype.
        compiled: whether kernels for float32 on CPU are expected to run.
    """
    weights = 3 * config.hidden_size * config.moe_intermediate_size
    quantization = config.quantization
    if not compiled or quantization is None:
        return weights * dtype_bytes
    if quantization.format is not ExpertFormat.PACK_QUANTIZED:
        return weights * dtype_bytes
    group = quantization.group[1]
    whole = config.hidden_size % LANES == 0 and 2 * config.moe_intermediate_size % LANES == 0
    if not whole:
        return 2 * weights
    return weights // 2 + weights // group * _SCALE_BYTES
