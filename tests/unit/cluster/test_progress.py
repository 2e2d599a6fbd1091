from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.cli.progress import Progress
from cluster.home import Home


def status(admin: str) -> dict[str, Any]:
    controller = {"id": "controller", "role": "controller", "state": "ready", "address": admin}
    rest = {"node": "n", "pid": 1, "layers": [], "epoch": None, "load": {}, "restarts": 0}
    rest |= {"spare": False, "leaving": False}
    return {"processes": [{**controller, **rest, "error": ""}]}


def test_the_run_file_follows_a_controller_that_was_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(path=tmp_path)
    progress = Progress(home, 0.0)
    with home.hold():
        progress.take({"event": "ready", "url": "http://u", "model": "m", "status": status("h:1")})
        assert home.running().admin == "http://h:1"
        progress.take({"event": "status", "status": status("h:1")})
        assert "admin: http://h:1\n" not in capsys.readouterr().out
        progress.take({"event": "status", "status": status("h:2")})
        assert home.running().admin == "http://h:2"
        assert (home.running().url, home.running().state) == ("http://u", "ready")
    assert "admin: http://h:2\n" in capsys.readouterr().out
