"""`orrery` as a person runs it: real processes, from a directory that is not the checkout's."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from cluster.cli.status import fetch_status
from cluster.home import Home
from tests.support.ports import free_port
from tests.support.processes import MARK, marked, wait_for_none

ROOT = Path(__file__).parents[2]
START_SECONDS = 240.0
STOP_SECONDS = 40.0


class Orrery:
    """One home directory, the commands run in it, and at most one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.mark = uuid.uuid4().hex
        self.lines: list[str] = []
        self._inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._server: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def run(
        self, *arguments: str, seconds: float = 60.0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        return subprocess.run(
            self._command(arguments),
            cwd=self.folder,
            env=self._environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """What `orrery status --json` prints. Without a process of its own: what is waited for
        needs the processors."""
        return fetch_status(Home(path=self.folder / "home").running())

    def serve(self, *arguments: str) -> None:
        """Starts a server; see `wait_for` for how far it got."""
        self._server = subprocess.Popen(
            self._command(("serve", "--port", str(self.port), *arguments)),
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self._server,), daemon=True).start()

    def wait_for(self, text: str, seconds: float = START_SECONDS) -> None:
        """Reads the server's output up to the line that holds `text`."""
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._inbox.get(timeout=max(end - time.monotonic(), 0.01))
            except queue.Empty:
                raise TimeoutError(f"no {text!r} in {seconds} s:\n{self._story()}") from None
            if line is None:
                raise AssertionError(f"the server ended before {text!r}:\n{self._story()}")
            self.lines.append(line)
            if text in line:
                return

    @property
    def server(self) -> int:
        """The server's process id."""
        assert self._server is not None
        return self._server.pid

    def signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.send_signal(number)

    def wait_for_end(self, seconds: float = STOP_SECONDS) -> int:
        """The server's exit code."""
        assert self._server is not None
        code = self._server.wait(seconds)
        while (line := self._inbox.get(timeout=5)) is not None:
            self.lines.append(line)
        return code

    def processes(self) -> list[psutil.Process]:
        """Everything alive that this object's commands started, whoever its parent is."""
        return marked(self.mark)

    def left_behind(self, seconds: float = 5.0) -> list[str]:
        return [" ".join(p.cmdline())[:120] for p in wait_for_none(self.mark, seconds)]

    def kill_everything(self) -> None:
        for process in self.processes():
            process.kill()
        if self._server is not None:
            self._server.wait(10)
            if self._server.stdout is not None:
                self._server.stdout.close()

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "cluster.cli", *arguments]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            MARK: self.mark,
            "ORRERY_HOME": str(self.folder / "home"),
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
        }

    def _read(self, server: subprocess.Popen[str]) -> None:
        if server.stdout is not None:
            for line in server.stdout:
                self._inbox.put(line)
        self._inbox.put(None)

    def _story(self) -> str:
        log = self.folder / "home" / "serve.log"
        tail = log.read_text(errors="replace")[-4000:] if log.is_file() else "no log"
        return f"{self.output}\n--- end of {log}:\n{tail}"
