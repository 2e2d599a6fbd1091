"""`orrery restart`: every expert worker started anew, one after the other."""

from __future__ import annotations

import argparse

from cluster.cli.ask import add_ask_flags, ask


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "restart",
        help="start every expert worker anew, one by one",
        description="Each is emptied, started anew and given experts again before the next is; "
        "requests go on.",
        epilog="examples:\n  orrery restart",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_ask_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    return ask(options, "/restart", {})
