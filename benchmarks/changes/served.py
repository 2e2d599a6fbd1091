"""`orrery serve` as a process, and what may be asked of its controller."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks.serving.services import ServiceError

READY_S = 300.0
_END_S = 60.0
_POLL_S = 0.25
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Served:
    """admin: URL of the controller's pages. token: that asks need. home: the folder."""

    admin: str
    token: str
    home: Path
    http: httpx.AsyncClient

    async def status(self) -> dict[str, Any]:
        said: dict[str, Any] = (await self.http.get(f"{self.admin}/status")).json()
        return said

    async def events(self) -> list[dict[str, Any]]:
        """All of them so far, oldest first."""
        told: list[dict[str, Any]] = (await self.http.get(f"{self.admin}/events")).json()
        return told

    async def ask(self, path: str, body: Mapping[str, Any]) -> None:
        """Raises httpx.HTTPError when it is refused."""
        answer = await self.http.post(
            f"{self.admin}{path}",
            json={**body, "by": "bench"},
            headers={"Authorization": f"Bearer {self.token}"},
        )
        answer.raise_for_status()

    async def watch(self, seconds: float) -> None:
        """Asks for the status as often as `rest` does, so that quiet seconds have that in them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await self.status()
                    await asyncio.sleep(_POLL_S)

    async def rest(self) -> dict[str, Any]:
        """The status once nothing is under way any more, spares included.

        Raises:
            TimeoutError: that takes too long.
        """
        async with asyncio.timeout(READY_S):
            while True:
                status = await self.status()
                states = {process["state"] for process in status["processes"]}
                if status["change"] is None and status["state"] == "ready" and states == {"ready"}:
                    return status
                await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def served(config: Mapping[str, Any]) -> AsyncIterator[Served]:
    """A server with this config, ended when the context is left.

    Raises:
        ServiceError: it ended before it was ready.
    """
    with TemporaryDirectory(prefix="orrery-bench-") as folder:
        home = Path(folder)
        file = home / "bench.yaml"
        # JSON is YAML.
        file.write_text(json.dumps({**config, "http": {"port": _free_port()}}))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cluster.cli", "serve", "--config", str(file)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, "ORRERY_HOME": str(home), "PYTHONPATH": str(_ROOT)},
        )
        try:
            await asyncio.wait_for(_ready(process), READY_S)
            admin = json.loads((home / "run.json").read_text())["admin"]
            token = (home / "admin-token").read_text().strip()
            async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
                yield Served(admin=admin, token=token, home=home, http=http)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.terminate()
            try:
                await asyncio.wait_for(process.communicate(), _END_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    told = b""
    async for line in process.stdout:
        told += line
        if line.startswith(b"ready: "):
            return
    raise ServiceError(f"orrery serve ended early:\n{told.decode()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
