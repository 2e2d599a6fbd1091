"""What holds for services of this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import experts_service.model
import kimi_k2.load
from kimi_k2.config import ModelConfig
from kimi_k2.numerics import Numerics, prove_numerics


@pytest.fixture(scope="session", autouse=True)
def proven_once() -> Iterator[None]:
    """This machine's arithmetic is proven once for each model, not by each of hundreds of services;
    that it comes out the same every time is for `tests/unit/kimi_k2/test_numerics.py`."""
    known: dict[tuple[object, ...], Numerics] = {}

    def prove(
        config: ModelConfig, dtype: str | torch.dtype = "auto", device: str | torch.device = "cpu"
    ) -> Numerics:
        key = config, dtype, device, torch.get_num_threads()
        if key not in known:
            known[key] = prove_numerics(config, dtype, device)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (experts_service.model, kimi_k2.load):
            patch.setattr(module, "prove_numerics", prove)
        yield
