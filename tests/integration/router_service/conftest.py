"""Random checkpoints for all engine tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kimi_k2.load import load_local_experts, load_router_model
from tests.integration.router_service.harness import Bench
from tests.support.checkpoints import write_random_checkpoint
from tests.support.tiny_tokenizer import tiny_tokenizer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers, two of them with experts."""
    return _written(tmp_path_factory.mktemp("tiny"), num_hidden_layers=3)


@pytest.fixture(scope="session")
def bench(checkpoint: Path, pytestconfig: pytest.Config) -> Bench:
    """The checkpoint with its experts in this process."""
    return _loaded(checkpoint, pytestconfig)


@pytest.fixture(scope="session")
def half_bench(checkpoint: Path, pytestconfig: pytest.Config) -> Bench:
    """The checkpoint in bfloat16 on any device."""
    return _loaded(checkpoint, pytestconfig, "bfloat16")


@pytest.fixture(scope="session")
def deep_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers with experts, so that four workers can have one each."""
    return _written(tmp_path_factory.mktemp("deep"), num_hidden_layers=5)


@pytest.fixture(scope="session")
def deep_bench(deep_checkpoint: Path, pytestconfig: pytest.Config) -> Bench:
    """The deep checkpoint with its experts in this process."""
    return _loaded(deep_checkpoint, pytestconfig)


def _written(directory: Path, *, num_hidden_layers: int) -> Path:
    """A vocabulary as large as the tiny tokenizer's, so that stop strings can be watched."""
    config = {
        "vocab_size": tiny_tokenizer().vocab_size,
        "eos_token_id": 7,
        "num_hidden_layers": num_hidden_layers,
    }
    return write_random_checkpoint(directory, config, seed=3, with_tokenizer=False)


def _loaded(checkpoint: Path, pytestconfig: pytest.Config, dtype: str = "auto") -> Bench:
    torch.set_num_threads(1)
    model = load_router_model(checkpoint, dtype, device=pytestconfig.getoption("device"))
    experts = load_local_experts(checkpoint, numerics=model.numerics)
    return Bench(model=model, experts=experts, tokenizer=tiny_tokenizer())
