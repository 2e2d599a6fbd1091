"""Where a run leaves its traces: the run file, the journal, the log.

The run file lets `orrery status`, `chat` and `stop` find a server without Ray. A lock that the
server holds while it lives tells a living server from the file of a dead one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cluster.errors import ClusterError, NotRunningError


@dataclass(frozen=True, kw_only=True)
class Run:
    """A running `orrery serve`. pid: of the process to signal. url, admin: empty until ready."""

    pid: int
    state: str
    url: str = ""
    admin: str = ""
    model: str = ""
    log: str = ""


@dataclass(frozen=True, kw_only=True)
class Home:
    """A directory of ours; two servers at a time need two."""

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "journal.json"

    @property
    def log(self) -> Path:
        return self.path / "serve.log"

    def open_log(self) -> BinaryIO:
        """A new log; the one before is kept as `serve.log.1`.

        Raises:
            ClusterError: it cannot be written.
        """
        try:
            if self.log.exists():
                self.log.replace(self.path / "serve.log.1")
            return self.log.open("wb")
        except OSError as error:
            raise ClusterError(f"cannot write {self.log}: {error}") from error

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps the lock of the one server of this home.

        Raises:
            ClusterError: another one has it, or the directory cannot be used.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "run.lock").open("a")
        except OSError as error:
            raise ClusterError(
                f"cannot use {self.path}: {error}; set ORRERY_HOME to a directory that can be "
                "written"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ClusterError(self._already()) from error
            try:
                yield
            finally:
                (self.path / "run.json").unlink(missing_ok=True)

    def write(self, run: Run) -> None:
        """Replaces the run file in one go; call it while holding the lock."""
        fresh = self.path / "run.json.new"
        fresh.write_text(json.dumps(dataclasses.asdict(run), indent=2), encoding="utf-8")
        fresh.replace(self.path / "run.json")

    def alive(self) -> bool:
        """Whether a server holds the lock."""
        try:
            with (self.path / "run.lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def running(self) -> Run:
        """The living server's run file.

        Raises:
            NotRunningError: there is none.
        """
        run = self._read() if self.alive() else None
        if run is None:
            raise NotRunningError(
                f"no orrery is running (looked in {self.path}); start one with `orrery serve`"
            )
        return run

    def _read(self) -> Run | None:
        try:
            content = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            return Run(**content)
        except (OSError, ValueError, TypeError):
            return None

    def _already(self) -> str:
        run = self._read()
        where = f" at {run.url}" if run and run.url else ""
        who = f" (process {run.pid})" if run else ""
        return (
            f"an orrery is already running{where}{who}; end it with `orrery stop`, or set "
            "ORRERY_HOME to another directory to run a second one"
        )


def home() -> Home:
    """`ORRERY_HOME`, or `~/.orrery`."""
    return Home(path=Path(os.environ.get("ORRERY_HOME") or Path.home() / ".orrery").absolute())
