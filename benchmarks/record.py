"""What every benchmark leaves behind: its figures, with the machine and the command they are of."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "grpcio", "ray", "transformers", "numpy", "numba")


def write_record(path: Path, body: Mapping[str, Any]) -> None:
    """`body` as JSON, after when, command, hardware, versions and the machine's load average."""
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **_versions()},
        "load_average": os.getloadavg()[0],
        **body,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote."""
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def machine(record: Mapping[str, Any]) -> str:
    """The machine of a record in a few words, for the title of a plot."""
    hardware = record["hardware"]
    return f"{hardware['cores']} cores, {hardware['processor']}"


def bar_line(name: str, value: float, bar: float, *, most: bool) -> str:
    """A figure held against its bar; `most`: it must not be above, else not below.

    >>> bar_line("load / read", 1.5, 2.0, most=True)
    'load / read: 1.50 (bar: at most 2) met'
    """
    met = value <= bar if most else value >= bar
    bound = "at most" if most else "at least"
    return f"{name}: {value:.2f} (bar: {bound} {bar:g}) {'met' if met else 'MISSED'}"


def hardware() -> dict[str, object]:
    """Of this machine, without its name."""
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "system": platform.system(),
        "avx512": " avx512f " in (_first("/proc/cpuinfo", "flags") or ""),
    }


def _first(file: str, key: str) -> str | None:
    path = Path(file)
    if not path.is_file():
        return None
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
