"""What is refused before anything starts: one clear line, the right exit code, no process."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from tests.e2e.server import Orrery


def refused(orrery: Orrery, code: int, *arguments: str) -> str:
    done = orrery.run(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert orrery.left_behind() == []
    return done.stderr


def test_a_port_in_use(orrery: Orrery) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", orrery.port))
        taken.listen()
        said = refused(orrery, 1, "serve", "--port", str(orrery.port))
    assert f"cannot listen on 127.0.0.1:{orrery.port}" in said
    assert "choose another with --port" in said


def test_a_missing_model(orrery: Orrery) -> None:
    said = refused(orrery, 2, "serve", "--model", "nowhere")
    assert f"there is no model directory at {orrery.folder / 'nowhere'}" in said
    assert "--model" in said


def test_a_damaged_checkpoint(orrery: Orrery, tiny_model: Path) -> None:
    model = orrery.folder / "damaged"
    shutil.copytree(tiny_model, model)
    shard = max(model.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-1000])
    said = refused(orrery, 1, "serve", "--model", str(model), "--port", str(orrery.port))
    assert "cannot be served" in said
    assert shard.name in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http: {prot: 8000}", "unknown key `http.prot`; did you mean `http.port`?"),
        ("experts: {workers: many}", "`experts.workers` must be a whole number"),
        ("http: [", "is not valid YAML"),
    ],
)
def test_a_wrong_config(orrery: Orrery, text: str, said: str) -> None:
    (orrery.folder / "fleet.yaml").write_text(text)
    assert said in refused(orrery, 2, "serve", "--config", "fleet.yaml")


def test_wrong_flags(orrery: Orrery) -> None:
    assert "must be between 1 and 65535" in refused(orrery, 2, "serve", "--port", "0")
    assert "invalid int value" in refused(orrery, 2, "serve", "--workers", "many")
    assert "placement 3x3 is impossible" in refused(orrery, 2, "plan", "--placement", "3x3")
    assert "invalid choice" in refused(orrery, 2, "destroy")


def test_nothing_runs(orrery: Orrery) -> None:
    for command in ("status", "chat", "stop"):
        assert "orrery serve" in refused(orrery, 1, command)
    assert "is `orrery serve` running there?" in refused(
        orrery, 1, "chat", "--url", orrery.url, "--message", "hi"
    )


def test_help_has_examples(orrery: Orrery) -> None:
    for arguments in ([], ["serve"], ["status"], ["chat"], ["plan"], ["stop"]):
        done = orrery.run(*arguments, "--help")
        assert done.returncode == 0
        assert "example" in done.stdout


def test_plan_shows_the_alternatives(orrery: Orrery) -> None:
    done = orrery.run("plan", "--workers", "3")
    assert done.returncode == 0
    for grid in ("1x3", "2+1", "3x1"):
        assert grid in done.stdout
    assert "chosen: " in done.stdout
