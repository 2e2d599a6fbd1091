"""`orrery restart`: every expert worker and router started anew, one after the other."""

from __future__ import annotations

import argparse

from cluster.cli.ask import add_ask_flags, ask


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "restart",
        help="start every expert worker and router anew, one by one",
        description="Each worker is emptied, started anew and given experts again before the next "
        "is. Then for each router another one is started, and the old one finishes what it has "
        "begun. Requests go on.",
        epilog="examples:\n  orrery restart",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_ask_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    return ask(options, "/restart", {})
