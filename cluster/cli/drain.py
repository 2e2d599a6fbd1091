"""`orrery drain`: empty expert workers and end them, replace routers, while requests run."""

from __future__ import annotations

import argparse

from cluster.cli.ask import add_ask_flags, admin_of, ask
from cluster.errors import ConfigError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "drain",
        help="empty an expert worker, a router, or all of a node, and end it",
        description="Their experts move to the others first; of a router, another one is started "
        "first. `orrery scale` brings the number of workers back up; nothing is started on a node "
        "that was drained.",
        epilog="examples:\n  orrery drain expert-2\n  orrery drain 9d25ea66",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="+",
        metavar="MEMBER|NODE",
        help="as `orrery status` has them; the first characters of a node will do",
    )
    add_ask_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    processes = admin_of(options).get("/status")["processes"]
    nodes = {process["node"] for process in processes if process["node"]}
    workers = {process["id"] for process in processes}
    return ask(options, "/drain", {"names": [_full(n, workers, nodes) for n in options.names]})


def _full(name: str, workers: set[str], nodes: set[str]) -> str:
    """The whole name of a worker, or of the one node that begins so."""
    alike = sorted(node for node in nodes if node.startswith(name))
    if name in workers or not alike:
        return name
    if len(alike) > 1:
        raise ConfigError(f"several nodes begin with {name}: {', '.join(alike)}")
    return alike[0]
