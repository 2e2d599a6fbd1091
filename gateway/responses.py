"""Responses: JSON, errors, and streams of server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from prometheus_client import Gauge
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.answer import Answer
from gateway.disconnect import ClientGoneError, until_disconnect
from gateway.errors import error_body, http_error
from kimi_k2.errors import ModelError
from wire.errors import OrreryError
from wire.generated import orrery_pb2 as pb

CLIENT_CLOSED = 499
_DONE = b"data: [DONE]\n\n"
_RETRY_AFTER_S = "1"
# Line ends to Unicode, and so to many a client that reads events line by line.
_LINE_ENDS = ("\x85", "\u2028", "\u2029")


def json_response(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """UTF-8 JSON; what no UTF-8 can say, such as an unpaired surrogate, is escaped."""
    return Response(
        _dumps(body), status_code=status, media_type="application/json", headers=dict(headers or {})
    )


def error_response(error: OrreryError | ModelError) -> Response:
    """The error in OpenAI's shape."""
    place = http_error(error)
    headers = {"retry-after": _RETRY_AFTER_S} if place.status in (429, 503) else {}
    return json_response(error_body(error), place.status, headers)


async def events(
    answer: Answer, outputs: AsyncGenerator[tuple[int, pb.RequestOutput]], *, include_usage: bool
) -> AsyncGenerator[bytes]:
    """The answer as server-sent events.

    An error before the first event is raised; later ones are an event without `[DONE]` after it.
    """
    extra = {"usage": None} if include_usage else {}
    started = False
    async with contextlib.aclosing(outputs):
        try:
            async for index, output in outputs:
                opening = [] if started else answer.opening()
                chunks = opening + answer.take(index, output)
                started = True
                if chunks:
                    yield b"".join(event({**chunk, **extra}) for chunk in chunks)
        except (OrreryError, ModelError) as error:
            if not started:
                raise
            yield event(error_body(error))
            return
    if include_usage:
        yield event(answer.closing())
    yield _DONE


def event(body: object) -> bytes:
    """One server-sent event: a line, whatever a client takes for the end of one."""
    data = _dumps(body)
    for end in _LINE_ENDS:
        data = data.replace(end.encode(), b"\\u%04x" % ord(end))
    return b"data: " + data + b"\n\n"


class EventStream(Response):
    """Sends events as they come, as fast as the client takes them; ends the generation when the
    client goes away, or takes nothing for `stall_s` seconds."""

    def __init__(
        self, first: bytes, rest: AsyncGenerator[bytes], open_streams: Gauge, stall_s: float
    ) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        del self.headers["content-length"]
        self._first = first
        self._rest = rest
        self._open_streams = open_streams
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._open_streams.track_inprogress(), contextlib.suppress(ClientGoneError, OSError):
            async with contextlib.aclosing(self._rest):
                await until_disconnect(receive, self._send(self._patiently(send)))

    def _patiently(self, send: Send) -> Send:
        async def bounded(message: Message) -> None:
            try:
                async with asyncio.timeout(self._stall_s):
                    await send(message)
            except TimeoutError:
                raise ClientGoneError from None

        return bounded

    async def _send(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await send({"type": "http.response.body", "body": self._first, "more_body": True})
        async for data in self._rest:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _dumps(body: Any) -> bytes:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", errors="backslashreplace")
