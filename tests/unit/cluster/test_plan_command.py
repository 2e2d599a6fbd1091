from __future__ import annotations

import json

import pytest

from cluster.cli import main


def test_the_plan_shows_copies_and_balancedness(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--redundant-experts", "twice", "--placement", "expert-major"]) == 0
    shown = capsys.readouterr().out
    assert "copies: 3072, of 1536 experts" in shown
    assert "balancedness: 1.000 mean, 1.000 in the worst layer" in shown


def test_the_plan_says_when_there_are_fewer_copies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--redundant-experts", "32", "--placement", "layer-major"]) == 0
    assert "note: 0 of 128 redundant experts are placed" in capsys.readouterr().out


def test_the_plan_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--redundant-experts", "32", "--placement", "2x2", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["copies"] == 4 * (384 + 32)
    assert made["fewer"] == ""
    assert set(made["balancedness"].values()) == {1.0}
