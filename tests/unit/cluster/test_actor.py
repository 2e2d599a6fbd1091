"""The controller's actor without Ray: what it says when it cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

import cluster.actor
from cluster.actor import ControllerHost
from cluster.blueprint import draw
from cluster.config import ClusterConfig
from cluster.errors import StartError
from tests.support.deadline import wait_until


def test_a_damaged_journal_is_told_and_the_process_ends_so_that_ray_starts_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(cluster.actor, "_end_process_after_a_pause", lambda: ended.append(1))
    journal = tmp_path / "journal.json"
    journal.write_text("[]")
    host = ControllerHost(draw(ClusterConfig()), journal)
    for ask in (host.status, host.routers):
        with pytest.raises(StartError, match=r"journal\.json holds no term; delete it"):
            ask()
    wait_until(lambda: ended == [1], "the end of the process")
    host.stop()
