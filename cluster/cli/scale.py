"""`orrery scale`: another number of expert workers, while requests run."""

from __future__ import annotations

import argparse
import re

from cluster.cli.ask import add_ask_flags, ask
from cluster.errors import ConfigError

_WANTED = re.compile(r"experts=(\d+)")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "scale",
        help="more or fewer expert workers",
        description="New workers get their part of the experts; those that go are emptied first.",
        epilog="examples:\n  orrery scale experts=6",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("wanted", metavar="experts=N", help="workers that hold experts")
    add_ask_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    wanted = _WANTED.fullmatch(options.wanted)
    if wanted is None:
        raise ConfigError(f"`{options.wanted}` is not understood; say for example experts=6")
    return ask(options, "/scale", {"experts": int(wanted[1])})
