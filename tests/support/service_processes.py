"""Routers and gateways as processes that a test kills and starts again at the same address."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.ports import free_port

REPOSITORY = Path(__file__).parents[2]
END_SECONDS = 30.0


class ServiceProcess:
    """One `python -m` service; its port and metrics port stay the same over restarts."""

    def __init__(self, module: str, *arguments: object) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self._command = [
            *(sys.executable, "-m", module, "--listen", self.address),
            *("--metrics-listen", self.metrics_address, *map(str, arguments)),
        ]
        self._process: subprocess.Popen[str] | None = None

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Returns once it is ready."""
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        if json.loads(line or "{}").get("event") != "ready":
            self.kill()
            raise RuntimeError(f"not ready: {line!r} from {' '.join(self._command)}")

    def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(END_SECONDS)
            if process.stdout is not None:
                process.stdout.close()


@contextlib.contextmanager
def running(*services: ServiceProcess) -> Iterator[None]:
    """Starts them one after the other, and kills what is left of them."""
    try:
        for service in services:
            service.start()
        yield
    finally:
        for service in services:
            service.kill()


def local_router(model: Path, *arguments: object) -> ServiceProcess:
    """A router that computes its experts itself."""
    return ServiceProcess(
        "router_service", "--model", model, "--threads", 1, "--local-experts", *arguments
    )


def gateway(model: Path, *routers: ServiceProcess) -> ServiceProcess:
    return ServiceProcess(
        "gateway", "--model", model, "--routers", *(router.address for router in routers)
    )
