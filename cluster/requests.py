"""What may be posted to the controller, as JSON, and what it means."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError, ConfigError
from cluster.signals import Ask, DrainAsked, RestartAsked, ScaleAsked

PATHS = ("/scale", "/drain", "/restart")
_TOKEN = "admin-token"


def parse_ask(path: str, body: Mapping[str, Any]) -> Ask:
    """The ask in a posted object.

    /scale {"experts": 6} · /drain {"names": ["expert-1"]} · /restart {}; each may have `by`.

    Raises:
        ConfigError: it is not one.
    """
    by = str(body.get("by", "somebody"))
    if path == "/scale":
        experts = body.get("experts")
        if type(experts) is not int:
            raise ConfigError(f"`experts` must be a whole number, got {experts!r}")
        return ScaleAsked(workers=experts, by=by)
    if path == "/drain":
        names = body.get("names")
        if not isinstance(names, list) or not names or any(type(n) is not str for n in names):
            raise ConfigError(f"`names` must list expert workers or nodes, got {names!r}")
        return DrainAsked(names=frozenset(names), by=by)
    return RestartAsked(by=by)


def token_of(folder: Path, *, make: bool = False) -> str:
    """The secret that asks are sent with, from a file that only its owner reads.

    Args:
        make: write one if there is none yet.

    Raises:
        ClusterError: it cannot be read or written.
    """
    path = folder / _TOKEN
    try:
        if make and not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"{_TOKEN}.{os.getpid()}")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_hex(32), encoding="utf-8")
            fresh.replace(path)
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ClusterError(f"cannot read the controller's token in {path}: {error}") from error
