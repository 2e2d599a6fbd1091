"""One small model for all tests of the expert worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.checkpoints import write_random_checkpoint
from tests.support.expert_workers import ExpertModel


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExpertModel:
    path: Path = tmp_path_factory.mktemp("experts") / "model"
    return ExpertModel.load(write_random_checkpoint(path, with_tokenizer=False))
