"""`orrery serve` as a person runs it, and what its controller tells of its processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import NotRunningError
from cluster.home import Home

_START_S = 300.0
_END_S = 60.0
_LOOK_S = 0.1
_ROOT = Path(__file__).resolve().parents[2]

Row = dict[str, Any]


class ServerError(Exception):
    """The server did not come up, or did not come to rest."""


class Server:
    """admin: the URL of the controller's pages."""

    def __init__(self, home: Home, model: str) -> None:
        self._home = home
        self.model = model

    def status(self) -> dict[str, Any]:
        return self._page("status")

    def events(self) -> list[Row]:
        return list(self._page("events"))

    def rows(self, role: str) -> list[Row]:
        return [row for row in self.status()["processes"] if row["role"] == role]

    def rest(self, seconds: float = 120.0) -> None:
        """Returns once every process that should run does, and nothing is being changed.

        Raises:
            ServerError: not in time.
        """
        end = time.monotonic() + seconds
        while not at_rest(self.status()):
            if time.monotonic() > end:
                raise ServerError(f"not at rest after {seconds:g} s: {self.status()}")
            time.sleep(_LOOK_S)

    def recovered(self, known: int, seconds: float = 60.0) -> float:
        """Seconds for which some expert had no live copy, after the first `known` events.

        Raises:
            ServerError: not in time.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in self.events()[known:]:
                if event["kind"] == "experts_recovered":
                    return float(event["seconds"])
            time.sleep(_LOOK_S)
        raise ServerError(f"experts did not come back in {seconds:g} s")

    def _page(self, name: str) -> Any:
        address = f"{self._home.running().admin}/{name}"
        with urllib.request.urlopen(address, timeout=20.0) as answer:
            return json.load(answer)


def at_rest(status: Mapping[str, Any]) -> bool:
    rows = [row for row in status["processes"] if row["role"] in ("router", "expert")]
    return (
        status["state"] == "ready"
        and status["change"] is None
        and all(row["state"] == "ready" for row in rows)
        and sum(row["spare"] for row in rows) == status["wanted"]["spares"]
    )


@contextlib.contextmanager
def serving(folder: Path, config: Mapping[str, Any]) -> Iterator[Server]:
    """A server at rest with a home of its own; ended when the context is left.

    Raises:
        ServerError: it does not come up.
    """
    home = Home(path=folder / "home")
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    log = folder / "output.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.cli", "serve", "--config", str(file)],
            cwd=_ROOT,
            env={**os.environ, "ORRERY_HOME": str(home.path)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _await(process, home, log)
            server = Server(home, home.running().model)
            server.rest()
            yield server
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(process: subprocess.Popen[bytes], home: Home, log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(NotRunningError):
            if home.running().state == "ready":
                return
        time.sleep(_LOOK_S)
    raise ServerError(f"the server is not ready:\n{log.read_text(errors='replace')[-2000:]}")
