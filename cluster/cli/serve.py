"""`orrery serve`: bring a cluster up, say what runs where, stay until told to stop."""

from __future__ import annotations

import argparse
import os
import time

from cluster.cli.options import add_fleet_flags, add_http_flags, config_of
from cluster.cli.progress import Progress
from cluster.config import ClusterConfig
from cluster.home import Run, home
from cluster.supervisor import supervise

_EXAMPLES = """\
examples:
  orrery serve
  orrery serve --port 9000 --workers 3 --placement 2+1
  orrery serve --model DIR --config fleet.yaml

Ctrl-C stops everything. cluster/example.yaml shows every key of the config.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "serve",
        help="start a cluster and serve a model over HTTP",
        description="Starts routers, expert workers and the HTTP gateway, and serves a model.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_fleet_flags(parser)
    add_http_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    config = config_of(options)
    place = home()
    with place.hold():
        place.write(Run(pid=os.getpid(), state="starting", log=str(place.log)))
        progress = Progress(place, time.monotonic())
        supervise(config, place, lambda: _check(config), progress.take)
    print("orrery: stopped, nothing is left running")
    return 0


def _check(config: ClusterConfig) -> None:
    # It imports torch, which takes seconds; meanwhile the supervisor's child imports, too.
    from cluster.preflight import check_model, check_request

    blueprint = check_request(config)
    print(f"orrery: {blueprint.model_name} from {blueprint.model_dir}")
    print(f"orrery: placement {blueprint.plan.reasons[0]}", flush=True)
    check_model(blueprint)
