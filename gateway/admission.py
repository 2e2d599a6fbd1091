"""Which requests a gateway takes: all, until it drains; then those it has are finished."""

from __future__ import annotations

import asyncio

from prometheus_client import Gauge
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.responses import error_response
from wire.errors import DrainingError


class Admission:
    """Counts the requests that are being answered, and says whether there may be more.

    Only those that ask for an answer of the model count; a probe is always answered.
    """

    def __init__(self, gauge: Gauge) -> None:
        """`gauge`: shows how many there are."""
        self._gauge = gauge
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    def begin(self) -> None:
        self._open += 1
        self._gauge.set(self._open)
        self._idle.clear()

    def end(self) -> None:
        self._open -= 1
        self._gauge.set(self._open)
        if not self._open:
            self._idle.set()

    async def drain(self, seconds: float) -> bool:
        """Takes nothing more; true once all is answered, false if the time was too short."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


class Admitted:
    """Lets a request through, or answers 503 in the API's shape."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._admission.draining:
            refusal = error_response(DrainingError("this gateway is about to end; try again"))
            refusal.headers["connection"] = "close"
            await refusal(scope, receive, send)
            return
        self._admission.begin()
        try:
            await self._app(scope, receive, send)
        finally:
            self._admission.end()
