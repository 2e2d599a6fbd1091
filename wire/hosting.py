"""What runs a service: a process of its own, or an actor whose calls come from other threads."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from google.protobuf.message import Message

from wire.background_loop import BackgroundLoop
from wire.polite import politely


class Service(Protocol):
    """A gRPC server with a life: started, ready, draining, stopped.

    address, metrics_address: host:port, there once `start` has returned.
    failed: set when it can serve no more.
    """

    address: str
    metrics_address: str
    failed: asyncio.Event

    async def start(self) -> None: ...
    async def wait_ready(self) -> None: ...
    async def drain(self, deadline_s: float) -> bool: ...
    async def stop(self) -> None: ...
    def describe(self) -> Message: ...


Make: TypeAlias = Callable[[], Service]


class HostedService:
    """A service on an event loop in a background thread; any thread may call."""

    def __init__(self, name: str, prepare: Callable[[], Make], *, polite: bool = False) -> None:
        """
        Args:
            prepare: called by `start`, in any thread: imports what the service needs, and gives
                what makes it, which is called on the loop.
            polite: `prepare` leaves the processors to others, see `wire.polite`.
        """
        self._name = name
        self._prepare = prepare
        self._polite = polite
        self._loop = BackgroundLoop(name)
        self._starting = threading.Lock()
        self._service: Service | None = None

    def start(self) -> dict[str, Any]:
        """Binds and returns at once; loading goes on. A second call gives the same answer.

        Raises:
            ListenError: a port cannot be listened on.
        """
        with self._starting:
            if self._service is None:
                make = politely(self._prepare) if self._polite else self._prepare()
                self._service = self._loop.run(self._started(make))
            return {
                "address": self._service.address,
                "metrics_address": self._service.metrics_address,
                "pid": os.getpid(),
            }

    def ready(self) -> None:
        """Blocks until the service serves; raises InternalError saying why it failed."""
        self._loop.run(self._running().wait_ready())

    def describe(self) -> bytes:
        """The service's serialized description."""
        return self._running().describe().SerializeToString()

    def drain(self, deadline_s: float) -> bool:
        return self._loop.run(self._running().drain(deadline_s))

    def stop(self) -> None:
        """Ends what runs and closes the ports; the host can then be killed without loss."""
        if self._service is not None:
            self._loop.run(self._service.stop())

    async def _started(self, make: Make) -> Service:
        service = make()
        await service.start()
        return service

    def _running(self) -> Service:
        if self._service is None:
            raise RuntimeError(f"the {self._name} is not started")
        return self._service


async def serve_until_told(
    make: Callable[[], Service],
    drain_s: float,
    started: Callable[[Any], Coroutine[Any, Any, None]] | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT, then drains; the exit status of the process.

    Args:
        started: awaited with the service between its start and its being ready.
    """
    asked_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_end.set)
    service = make()
    await service.start()
    try:
        if started is not None:
            await started(service)
        await _first(service.wait_ready(), asked_to_end.wait())
        if not asked_to_end.is_set():
            say(
                event="ready",
                address=service.address,
                metrics_address=service.metrics_address,
                pid=os.getpid(),
            )
            await _first(asked_to_end.wait(), service.failed.wait())
        if service.failed.is_set():
            return 1
        await service.drain(drain_s)
        return 0
    finally:
        await service.stop()


def say(**fields: object) -> None:
    """One JSON line for whoever started this process."""
    print(json.dumps(fields), flush=True)


async def _first(*waits: Awaitable[object]) -> None:
    """Returns, or raises what it raised, as soon as one of the awaitables is through."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()
