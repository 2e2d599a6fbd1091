"""One tiny random checkpoint for all engine tests."""

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
    """A vocabulary as large as the tiny tokenizer's, so that stop strings can be watched."""
    directory = tmp_path_factory.mktemp("tiny")
    config = {"vocab_size": tiny_tokenizer().vocab_size, "eos_token_id": 7}
    return write_random_checkpoint(directory, config, seed=3, with_tokenizer=False)


@pytest.fixture(scope="session")
def bench(checkpoint: Path) -> Bench:
    """The checkpoint with its experts in this process."""
    torch.set_num_threads(1)
    model = load_router_model(checkpoint)
    experts = load_local_experts(checkpoint, numerics=model.numerics)
    return Bench(model=model, experts=experts, tokenizer=tiny_tokenizer())
