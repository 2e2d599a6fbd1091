"""A real Prometheus on a free port, with the repository's own configuration."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.ports import free_port

MONITORING = Path(__file__).parents[2] / "monitoring"
MISSING = "Prometheus is not installed: on Debian and Ubuntu `apt-get install prometheus`"


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`; skips the test where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(MISSING)
    return path


class Prometheus:
    """Answers PromQL; see `prometheus` for how to start one."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=10, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def ready(self) -> bool:
        """Until it is, it answers everything with 503."""
        return self._http.get("/-/ready").is_success

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an API answer; raises AssertionError with Prometheus' words."""
        answer = self._http.get(f"/api/v1/{path}", params=parameters)
        assert answer.is_success, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except httpx.TransportError:
                # It is still starting.
                pass
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {seconds} s")
            time.sleep(0.2)


@contextmanager
def prometheus(folder: Path, discovery: str) -> Iterator[Prometheus]:
    """Runs `monitoring/prometheus.yml`, but with another discovery URL and every second."""
    binary = program("prometheus")
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(MONITORING / path) for path in config["rule_files"]]
    for job in config["scrape_configs"]:
        job["http_sd_configs"] = [{"url": discovery, "refresh_interval": "1s"}]
    file = folder / "prometheus.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        client = Prometheus(f"http://{address}")
        try:
            client.wait("Prometheus is ready", client.ready, 60)
            yield client
        finally:
            client.close()
            process.terminate()
            process.wait(20)
