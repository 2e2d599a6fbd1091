from __future__ import annotations

import json
from pathlib import Path

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


LOADS = Path(__file__).parents[3] / "models" / "nano-k2" / "expert_loads.json"


def balancedness(capsys: pytest.CaptureFixture[str], *flags: str) -> list[float]:
    command = ["plan", "--placement", "expert-major", "--json", *flags]
    assert main(command) == 0
    return list(json.loads(capsys.readouterr().out)["balancedness"].values())


def test_the_plan_is_made_for_recorded_loads(capsys: pytest.CaptureFixture[str]) -> None:
    """One hot expert per layer is more than its worker's part, until it has copies."""
    alone = balancedness(capsys, "--loads", str(LOADS), "--workers", "8")
    assert max(alone) < 1.0
    copied = ("--workers", "8", "--redundant-experts", "32")
    assert min(balancedness(capsys, "--loads", str(LOADS), *copied)) > 0.95
    chat = balancedness(capsys, "--loads", str(LOADS), "--domains", "chat", *copied)
    assert chat != balancedness(capsys, "--loads", str(LOADS), "--domains", "docs", *copied)


@pytest.mark.parametrize(
    ("content", "flags", "why"),
    [
        (None, [], "holds no loads"),
        ("[]", [], "holds no loads"),
        ('{"layers": [1], "loads": {}}', [], "loads of the layers"),
        ('{"layers": [1, 2, 3, 4], "loads": {"a": [[1]]}}', [], "not 4 layers of 384"),
        ('{"layers": [1, 2, 3, 4], "loads": {"a": []}}', ["--domains", "b"], "no domain b, but a"),
    ],
)
def test_loads_that_are_not_the_models_are_refused(
    content: str | None,
    flags: list[str],
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "loads.json"
    if content is not None:
        file.write_text(content)
    assert main(["plan", "--loads", str(file), *flags]) != 0
    assert why in capsys.readouterr().err
