"""`orrery events`: what happened to the fleet, when, and how long it took."""

from __future__ import annotations

import argparse
import json
import time

from cluster.cli.ask import add_admin_flag, admin_of, line_of

_POLL_S = 0.5


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "events",
        help="show what happened to the fleet",
        epilog="examples:\n  orrery events\n  orrery events --follow\n"
        "  orrery events --json | jq 'select(.kind == \"member_died\")'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="one object a line, for programs")
    parser.add_argument("--last", metavar="N", type=int, default=50, help="at first so many (50)")
    add_admin_flag(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    entries = admin_of(options).get("/events")[-options.last :] if options.last > 0 else []
    seen = 0
    while True:
        for entry in entries:
            print(json.dumps(entry) if options.json else line_of(entry), flush=True)
            seen = entry["number"]
        if not options.follow:
            return 0
        time.sleep(_POLL_S)
        # The address anew: a controller that was started again may have another one.
        entries = [e for e in admin_of(options).get("/events") if e["number"] > seen]
