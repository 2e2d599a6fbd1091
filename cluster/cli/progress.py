"""What `orrery serve` prints as its cluster comes up, lives and goes."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from cluster.cli.table import process_table
from cluster.home import Home, Run

_BAR = 24


class Progress:
    """Turns events into lines, and keeps the run file."""

    def __init__(self, place: Home, started: float) -> None:
        self._place = place
        self._started = started
        self._live = sys.stdout.isatty()
        self._drawn = ""
        self._states: dict[str, str] = {}
        self._stopping = False
        self._run: Run | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Prints what is new in an event of `cluster.launch`."""
        kind = event["event"]
        if kind == "progress":
            self._line(str(event["text"]))
        elif kind == "loading":
            self._loading(event["status"])
        elif kind == "ready":
            self._ready(event)
        elif kind == "status":
            self._note_admin(event["status"])
            self._changes(event["status"])
        elif kind == "stopping":
            self._stopping = True
            self._line("stopping (Ctrl-C again to hurry)")

    def _loading(self, status: Mapping[str, Any]) -> None:
        if self._stopping:
            return
        members = [
            p for p in status["processes"] if p["role"] in ("router", "expert") and not p["spare"]
        ]
        ready = sum(p["state"] == "ready" for p in members)
        total = sum(p["experts"] for p in members)
        held = sum(p["experts"] if p["state"] == "ready" else p.get("loaded", 0) for p in members)
        filled = _BAR * held // max(total, 1)
        text = (
            f"loading [{'#' * filled}{'.' * (_BAR - filled)}] {held}/{total} experts, "
            f"{ready}/{len(members)} processes ready"
        )
        if self._live:
            print(f"\r\x1b[2K{self._clock()} {text}", end="", flush=True)
        elif text != self._drawn:
            self._line(text)
        self._drawn = text
        self._changes(status)

    def _ready(self, event: Mapping[str, Any]) -> None:
        status = event["status"]
        self._changes(status)
        admin = _admin_of(status)
        self._run = Run(
            pid=os.getpid(),
            state="ready",
            url=event["url"],
            admin=admin,
            model=event["model"],
            log=str(self._place.log),
        )
        self._place.write(self._run)
        if self._live:
            print()
        print(f"\n{process_table(status)}\n")
        print(f"admin: {admin}/status /placement /events /sd /metrics")
        print(f"ready: {event['url']}/v1", flush=True)

    def _note_admin(self, status: Mapping[str, Any]) -> None:
        """A controller that was started again may have its pages at another port."""
        admin = _admin_of(status)
        if self._run is not None and admin != self._run.admin:
            self._run = dataclasses.replace(self._run, admin=admin)
            self._place.write(self._run)
            self._line(f"admin: {admin}")

    def _changes(self, status: Mapping[str, Any]) -> None:
        """Says what became of members since the last look, once they have been ready."""
        for process in status["processes"]:
            before, now = self._states.get(process["id"]), process["state"]
            self._states[process["id"]] = now
            if before == "ready" and now != "ready":
                self._line(f"{process['id']} is {now}: {process['error'] or 'no reason given'}")
            elif before not in (None, "ready") and now == "ready" and process["restarts"]:
                self._line(f"{process['id']} is ready again")

    def _line(self, text: str) -> None:
        if self._stopping and text.startswith("loading"):
            return
        start = "\r\x1b[2K" if self._live else ""
        print(f"{start}{self._clock()} {text}", flush=True)

    def _clock(self) -> str:
        return f"[{time.monotonic() - self._started:5.1f} s]"


def _admin_of(status: Mapping[str, Any]) -> str:
    address = next(p["address"] for p in status["processes"] if p["role"] == "controller")
    return f"http://{address}"
