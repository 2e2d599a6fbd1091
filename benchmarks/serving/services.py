"""Our services as processes of their own, without Ray."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

READY_S = 300.0
_END_S = 40.0
_ROOT = Path(__file__).resolve().parents[2]


class ServiceError(Exception):
    """A process that was started ended or stayed silent instead of becoming ready."""


@asynccontextmanager
async def service(
    arguments: Sequence[str], *, python: str = sys.executable
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A python process in the repository's root, ended when the context is left."""
    process = await asyncio.create_subprocess_exec(
        python,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env=dict(os.environ),
        limit=1 << 26,
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


async def address(process: asyncio.subprocess.Process) -> str:
    """Where a service listens, once it is ready.

    Raises:
        ServiceError: it will never be.
    """
    said = await message(process, READY_S)
    if said.get("event") != "ready":
        raise ServiceError(str(said.get("error", said)))
    return str(said["address"])
