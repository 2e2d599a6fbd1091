"""The end of a server, at good and bad moments: nothing is left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.server import Orrery

pytestmark = pytest.mark.ray


def test_interrupted_while_it_loads(orrery: Orrery, tiny_model: Path) -> None:
    orrery.serve("--model", str(tiny_model), "--workers", "2")
    orrery.wait_for("loading [")
    orrery.signal(signal.SIGINT)
    assert orrery.wait_for_end() == 0, orrery.output
    assert orrery.left_behind() == []
    assert "nothing is left running" in orrery.output
    assert not (orrery.folder / "home" / "run.json").exists()


def test_killed_outright_it_takes_the_cluster_with_it(orrery: Orrery, tiny_model: Path) -> None:
    orrery.serve("--model", str(tiny_model), "--workers", "2")
    orrery.wait_for("loading [")
    orrery.signal(signal.SIGKILL)
    assert orrery.wait_for_end() == -signal.SIGKILL
    assert orrery.left_behind(40) == []
    late = orrery.run("status")
    assert late.returncode == 1
    assert "no orrery is running" in late.stderr
