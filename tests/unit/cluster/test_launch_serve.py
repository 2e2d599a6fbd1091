"""What Ray Serve may hand to the application; the rest is seen in the test of the pods."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError

from cluster.errors import ConfigError, StartError
from cluster.launch_serve import app, wait_until_ready

WANTED = {"experts": {"workers": 2}}


def status(state: str, member: str) -> dict[str, Any]:
    error = "no room" if member == "pending" else ""
    return {"state": state, "processes": [{"id": "expert-0", "state": member, "error": error}]}


@pytest.mark.parametrize("args", [{}, {"config": "c.yaml", "more": "x"}, {"confg": "c.yaml"}])
def test_other_arguments_are_refused(args: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="`config` and nothing else"):
        app(args)


def test_a_config_for_a_ray_of_its_own_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "orrery.yaml"
    file.write_text("experts: {workers: 2}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"ray\.address"):
        app({"config": str(file)})


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        app({"config": str(tmp_path / "nowhere.yaml")})


def test_waits_for_every_member_and_says_for_which(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.launch_serve._POLL_S", 0.0)
    monkeypatch.setattr(logging.getLogger("ray.serve"), "propagate", True)
    caplog.set_level(logging.INFO, "ray.serve")
    answers = [
        status("starting", "pending"),
        status("starting", "pending"),
        GetTimeoutError("gone"),
        status("ready", "ready"),
    ]

    def ask(page: str) -> dict[str, Any]:
        answer = WANTED if page == "config" else answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    wait_until_ready(ask, WANTED)
    assert not answers
    # Once each, or twice where Ray's loggers pass records on.
    assert list(dict.fromkeys(record.getMessage() for record in caplog.records)) == [
        "orrery: starting: expert-0 pending (no room)",
        "orrery: the controller does not answer: gone",
    ]


def test_a_fleet_of_another_config_is_refused() -> None:
    with pytest.raises(StartError, match="another config"):
        wait_until_ready(lambda page: {"experts": {"workers": 3}}, WANTED)
