"""`orrery status`: what runs where, from the controller's admin page."""

from __future__ import annotations

import argparse
import json
from typing import Any

import httpx

from cluster.cli.table import process_table
from cluster.errors import NotRunningError
from cluster.home import Run, home

_TIMEOUT_S = 10.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "status",
        help="show every process of the running server",
        epilog="examples:\n  orrery status\n  orrery status --json | jq .processes[].pid",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    running = home().running()
    status = fetch_status(running)
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        epoch = status["epoch"]
        print(
            f"{running.model} at {running.url}/v1: {status['state']}, epoch "
            f"{epoch['term']}.{epoch['counter']}\n"
        )
        print(process_table(status))
    return 0


def fetch_status(running: Run) -> dict[str, Any]:
    """The controller's status page, with what the run file adds.

    Raises:
        NotRunningError: it is still starting, or does not answer.
    """
    if not running.admin:
        raise NotRunningError(
            f"the server (process {running.pid}) is still starting; its log is {running.log}"
        )
    try:
        answer = httpx.get(f"{running.admin}/status", timeout=_TIMEOUT_S, trust_env=False)
        status: dict[str, Any] = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        raise NotRunningError(
            f"the controller at {running.admin} does not answer: {error}; `orrery stop` ends the "
            f"server, its log is {running.log}"
        ) from error
    return {"url": running.url, "model": running.model, "admin": running.admin, **status}
