"""Reads the command line and ends with 0, 1 (it failed) or 2 (it cannot be as asked)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cluster.cli import chat, drain, events, plan, restart, scale, serve, status, stop
from cluster.errors import ClusterError

_EXAMPLES = """\
examples:
  orrery serve                      serve the embedded model at http://127.0.0.1:8000/v1
  orrery serve --port 9000 --workers 3 --placement 2+1
  orrery serve --model DIR --config fleet.yaml
  orrery status --json              every process of the running server
  orrery chat                       talk to it in the terminal
  orrery plan --workers 8           what the planner would choose, and what it predicts
  orrery scale experts=6            more or fewer expert workers, without a pause
  orrery drain expert-2             empty a worker, or all of a node, and end it
  orrery restart                    start every expert worker anew, one by one
  orrery events --follow            what happens to the fleet
  orrery stop
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code and prints errors to standard error."""
    parser = argparse.ArgumentParser(
        prog="orrery",
        description="Serves mixture-of-experts models with the experts in processes of their own.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (serve, status, chat, plan, scale, drain, restart, events, stop):
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except ClusterError as error:
        print(f"orrery: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough, e.g. `orrery status | head`.
        sys.stderr.close()
        return 0
