"""The start of every process that computes: find row shapes that hold, or refuse to serve."""

from __future__ import annotations

from dataclasses import replace

import torch

from kimi_k2.arithmetic import Numerics
from kimi_k2.attention_plan import BLOCKS_AT_ONCE
from kimi_k2.config import ModelConfig
from kimi_k2.errors import ConfigError, NumericsError
from kimi_k2.fingerprint import fingerprint
from kimi_k2.self_test import expert_rows_vary, first_variant, product_shapes

__all__ = ["Numerics", "prove_numerics", "resolve_dtype"]

_CPU_QUANTA = (4, 8, 16, 32, 64)
_CPU_MAX_ROWS = 512
_DEVICE_QUANTA = (128,)
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
    cpu = device.type == "cpu"
    refuted = []
    for quantum in _CPU_QUANTA if cpu else _DEVICE_QUANTA:
        candidate = Numerics(
            row_quantum=quantum,
            max_rows=_CPU_MAX_ROWS if cpu else quantum,
            blocks_at_once=None if cpu else BLOCKS_AT_ONCE,
            fingerprint="",
            dtype=dtype,
            device=device,
        )
        broken = first_variant(candidate, product_shapes(config))
        if broken is not None:
            refuted.append(f"{quantum} rows: {broken}")
        elif expert_rows_vary(candidate, config):
            refuted.append(f"{quantum} rows: the experts' network")
        else:
            return replace(candidate, fingerprint=fingerprint(config, candidate))
    raise NumericsError(
        f"no row quantum makes {dtype} products independent of the batch on {device} with"
        f" {torch.get_num_threads()} threads ({'; '.join(refuted)}); try another thread count"
        " (OMP_NUM_THREADS) or dtype"
    )
