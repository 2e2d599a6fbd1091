"""Servers that tests start themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import Orrery
from tests.support.checkpoints import write_random_checkpoint


@pytest.fixture
def orrery(tmp_path: Path) -> Iterator[Orrery]:
    """No server yet; a test that starts one ends it, or this does."""
    orrery = Orrery(tmp_path)
    yield orrery
    orrery.kill_everything()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("model") / "tiny")
