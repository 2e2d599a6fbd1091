"""One server of the embedded model for every test that only asks it something."""

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


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orrery]:
    """`orrery serve` with nothing but a port, ready."""
    orrery = Orrery(tmp_path_factory.mktemp("served"))
    try:
        orrery.serve()
        orrery.wait_for("ready: ")
        yield orrery
        stopped = orrery.run("stop")
        assert stopped.returncode == 0, stopped.stderr
        assert orrery.wait_for_end() == 0, orrery.output
        assert orrery.left_behind() == []
    finally:
        orrery.kill_everything()
