"""`python -m gateway` as a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

DEADLINE_S = 60


def start(model: Path, *options: str) -> subprocess.Popen[str]:
    command: Sequence[str] = (
        *(sys.executable, "-m", "gateway", "--model", str(model)),
        *("--routers", "127.0.0.1:1", *options),
    )
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_says_where_it_listens_and_ends_on_sigterm(tiny_model: Path) -> None:
    process = start(tiny_model, "--listen", "127.0.0.1:0", "--model-name", "named")
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["event"], ready["pid"]) == ("ready", process.pid)
        with httpx.Client(base_url=f"http://{ready['address']}", trust_env=False) as http:
            assert http.get("/v1/models").json()["data"][0]["id"] == "named"
            assert http.get("/health").json()["status"] == "no router is ready"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def test_what_hinders_the_start_is_named(tiny_model: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for model, listen, message in (
            (tiny_model, address, f"cannot listen on {address}"),
            (tiny_model, "nowhere", "cannot listen on nowhere"),
            (tmp_path / "absent", "127.0.0.1:0", "tokenizer_config.json"),
        ):
            process = start(model, "--listen", listen)
            _, errors = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 1
            assert message in errors
            assert "Traceback" not in errors
