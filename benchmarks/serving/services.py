"""Our services as processes of their own, without Ray."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

READY_S = 300.0
_END_S = 40.0
_PR_SET_PTRACER = 0x59616D61
_ANY_PROCESS = -1
_ROOT = Path(__file__).resolve().parents[2]


class ServiceError(Exception):
    """A process that was started ended or stayed silent instead of becoming ready."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A service that runs; addresses are host:port, empty where it has none."""

    process: asyncio.subprocess.Process
    pid: int
    address: str
    metrics_address: str


def end_on_sigterm() -> None:
    """SIGTERM ends the running task as Ctrl-C does, so that no service is left behind."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


@asynccontextmanager
async def service(
    arguments: Sequence[str], *, python: str = sys.executable, traceable: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A python process in the repository's root, ended when the context is left.

    traceable: a profiler that is no parent of the process may look into it.
    """
    process = await asyncio.create_subprocess_exec(
        python,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env=dict(os.environ),
        limit=1 << 26,
        preexec_fn=_let_trace if traceable else None,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def _let_trace() -> None:
    """For Linux with Yama's `ptrace_scope` 1, where only a parent may trace otherwise."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_long(_ANY_PROCESS))


async def message(process: asyncio.subprocess.Process, timeout_s: float) -> dict[str, object]:
    """The next line of JSON that the process writes; other lines are passed over.

    Raises:
        ServiceError: the process ended first, or `timeout_s` passed.
    """
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            while line := await process.stdout.readline():
                with suppress(json.JSONDecodeError):
                    found = json.loads(line)
                    if isinstance(found, dict):
                        return found
    except TimeoutError:
        raise ServiceError(f"process {process.pid} said nothing for {timeout_s} s") from None
    raise ServiceError(f"process {process.pid} ended with status {await process.wait()}")


async def ready(process: asyncio.subprocess.Process) -> Ready:
    """What a service says of itself once it is ready.

    Raises:
        ServiceError: it will never be.
    """
    said = await message(process, READY_S)
    if said.get("event") != "ready":
        raise ServiceError(str(said.get("error", said)))
    return Ready(
        process=process,
        pid=process.pid,
        address=str(said["address"]),
        metrics_address=str(said.get("metrics_address", "")),
    )
