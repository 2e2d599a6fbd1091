"""Asking the controller for something, and watching it come about."""

from __future__ import annotations

import argparse
import getpass
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from cluster.errors import ClusterError, NotRunningError
from cluster.home import home
from cluster.requests import token_of

_TIMEOUT_S = 60.0
_POLL_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Admin:
    """The controller's pages. url: as `http://127.0.0.1:9400`."""

    url: str

    def get(self, path: str) -> Any:
        """A page's JSON.

        Raises:
            NotRunningError: nobody answers there.
        """
        try:
            answer = httpx.get(f"{self.url}{path}", timeout=_TIMEOUT_S, trust_env=False)
            return answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise NotRunningError(
                f"the controller at {self.url} does not answer: {error}"
            ) from error

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the controller answers, in the name of whoever runs this.

        Raises:
            NotRunningError: nobody answers there.
            ClusterError: it refuses; says why.
        """
        token = token_of(home().path)
        try:
            answer = httpx.post(
                f"{self.url}{path}",
                json={**body, "by": _me()},
                headers={"Authorization": f"Bearer {token}"},
                timeout=_TIMEOUT_S,
                trust_env=False,
            )
            said = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise NotRunningError(
                f"the controller at {self.url} does not answer: {error}"
            ) from error
        if answer.is_error:
            raise ClusterError(str(said.get("error", answer.status_code)))
        return said

    def follow(self, after: int) -> None:
        """Prints events with higher numbers until nothing is under way any more."""
        while True:
            try:
                status, entries = self.get("/status"), self.get("/events")
            except NotRunningError:
                # A controller that is lost comes back, and goes on.
                time.sleep(_POLL_S)
                continue
            for entry in entries:
                if entry["number"] > after:
                    print(line_of(entry), flush=True)
                    after = entry["number"]
            if status["change"] is None:
                return
            time.sleep(_POLL_S)

    def last(self) -> int:
        """The number of the newest event."""
        entries = self.get("/events")
        return int(entries[-1]["number"]) if entries else 0


def add_admin_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        metavar="URL",
        help="the controller's pages, e.g. http://127.0.0.1:9400, where there is no `orrery serve`",
    )


def add_ask_flags(parser: argparse.ArgumentParser) -> None:
    add_admin_flag(parser)
    parser.add_argument("--no-wait", action="store_true", help="return as soon as it is accepted")


def admin_of(options: argparse.Namespace) -> Admin:
    """Where the options, or the running server's file, say that the controller is.

    Raises:
        NotRunningError: there is no server, or it is still starting.
    """
    if options.admin:
        return Admin(url=options.admin.rstrip("/"))
    running = home().running()
    if not running.admin:
        raise NotRunningError(f"the server (process {running.pid}) is still starting")
    return Admin(url=running.admin)


def ask(options: argparse.Namespace, path: str, body: Mapping[str, Any]) -> int:
    """Asks, and unless told otherwise stays until it has come about."""
    admin = admin_of(options)
    before = admin.last()
    admin.post(path, body)
    if options.no_wait:
        print("accepted; `orrery events --follow` shows it")
    else:
        admin.follow(before)
    return 0


def line_of(entry: Mapping[str, Any]) -> str:
    """An event in a line of text."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["time"]))
    took = "" if entry["seconds"] is None else f" ({entry['seconds']:.2f} s)"
    by = f" (asked by {entry['facts']['by']})" if "by" in entry["facts"] else ""
    subject = f" {entry['subject']}" if entry["subject"] else ""
    return f"{clock} {entry['kind']}{subject}: {entry['text']}{by}{took}"


def _silent(url: str, error: Exception) -> NotRunningError:
    return NotRunningError(f"the controller at {url} does not answer: {error}")


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
