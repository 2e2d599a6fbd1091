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
        epilog="examples:\n  orrery stop\n  orrery stop --ray-address 10.0.0.7:6379",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="end what is left on this Ray cluster of an orrery whose `orrery serve` is gone",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.ray_address:
        # It imports Ray and torch, which takes seconds.
        from cluster.launch_shared import end_orrery

        end_orrery(options.ray_address)
        print(f"stopped the orrery of the Ray cluster at {options.ray_address}")
        return 0
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
