"""The start of every process that computes: find row shapes that hold, or refuse to serve."""

from __future__ import annotations

from dataclasses import replace

import torch

from kimi_k2.arithmetic import Numerics
from kimi_k2.attention_plan import BLOCKS_AT_ONCE
from kimi_k2.compiled_proof import with_kernels
from kimi_k2.config import ModelConfig
from kimi_k2.errors import ConfigError, NumericsError
from kimi_k2.fingerprint import fingerprint
from kimi_k2.self_test import expert_rows_vary, first_variant, product_shapes

__all__ = ["Numerics", "prove_numerics", "resolve_dtype"]

_FLEXIBLE_ROWS = 512
_CPU_SHAPES = (
    *((quantum, _FLEXIBLE_ROWS, None) for quantum in (4, 8, 16, 32, 64)),
    (16, 16, BLOCKS_AT_ONCE),
)
"""Row quantum, most rows, blocks at once; the fastest first. The last one is for processors and
thread counts with which rows change bits with their number: one fixed shape cannot."""
_DEVICE_SHAPES = ((128, 128, BLOCKS_AT_ONCE),)
"""A device's library chooses kernels by every size, so there every product has one fixed shape."""


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The activation dtype; "auto" is float32 on CPU and bfloat16 on anything else.

    Raises:
        ConfigError: a name that is not "auto", "float32" or "bfloat16".
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in known:
        raise ConfigError(f"dtype {dtype!r} is not served, only auto, {', '.join(known)}")
    return known[dtype]


def prove_numerics(
    config: ModelConfig, dtype: str | torch.dtype = "auto", device: str | torch.device = "cpu"
) -> Numerics:
    """Finds row shapes that make this machine's bits independent of the batch.

    Takes well under a second for nano-K2. Processes on alike machines get equal fingerprints.

    Raises:
        NumericsError: no candidate shape passes.
    """
    device = torch.device(device)
    dtype = resolve_dtype(dtype, device)
    refuted = []
    for quantum, max_rows, blocks_at_once in (
        _CPU_SHAPES if device.type == "cpu" else _DEVICE_SHAPES
    ):
        candidate = Numerics(
            row_quantum=quantum,
            max_rows=max_rows,
            blocks_at_once=blocks_at_once,
            fingerprint="",
            dtype=dtype,
            device=device,
        )
        broken = first_variant(candidate, product_shapes(config))
        if broken is not None:
            refuted.append(f"{quantum} to {max_rows} rows: {broken}")
        elif expert_rows_vary(candidate, config):
            refuted.append(f"{quantum} to {max_rows} rows: the experts' network")
        else:
            proven = with_kernels(candidate, config)
            return replace(proven, fingerprint=fingerprint(config, proven))
    raise NumericsError(
        f"no row quantum makes {dtype} products independent of the batch on {device} with"
        f" {torch.get_num_threads()} threads ({'; '.join(refuted)}); try another thread count"
        " (OMP_NUM_THREADS) or dtype"
    )
