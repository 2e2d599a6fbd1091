"""`orrery stop`: end the running server and wait until it is gone."""

from __future__ import annotations

import argparse
import os
import signal
import time

from cluster.errors import ClusterError
from cluster.home import home

_WAIT_S = 60.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "stop",
        help="end the running server and everything it started",
        epilog="example:\n  orrery stop",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    place = home()
    running = place.running()
    try:
        os.kill(running.pid, signal.SIGTERM)
    except ProcessLookupError:
        return 0
    except PermissionError as error:
        raise ClusterError(f"process {running.pid} belongs to somebody else") from error
    end = time.monotonic() + _WAIT_S
    while place.alive():
        if time.monotonic() > end:
            raise ClusterError(
                f"process {running.pid} did not end within {_WAIT_S:.0f} s; its log is "
                f"{running.log}"
            )
        time.sleep(0.1)
    print(f"stopped {running.url or f'process {running.pid}'}")
    return 0
