"""An OpenAI-style HTTP server, asked with streaming completions.

The client does no more than it must: what it takes from the processor is taken from the server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from benchmarks.serving.load import Answer, Ask

_DATA = b"data: "
_DONE = b"data: [DONE]"


class HttpError(Exception):
    """The server refused a request or broke off."""


@dataclass(frozen=True, kw_only=True)
class HttpSide:
    """address: host:port. model: its name in the API."""

    name: str
    address: str
    model: str
    takes_arrivals: bool = True
    versions: Mapping[str, str] = field(default_factory=dict)

    async def run(self, asks: Sequence[Ask]) -> list[Answer]:
        began = perf_counter()
        return list(await asyncio.gather(*(self._one(ask, began) for ask in asks)))

    async def _one(self, ask: Ask, began: float) -> Answer:
        if ask.at_s:
            await asyncio.sleep(began + ask.at_s - perf_counter())
        sent = perf_counter()
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(self._request(ask))
            times, last = await self._read(reader)
        finally:
            writer.close()
            await writer.wait_closed()
        # A token that completes no character has no event of its own: it came with a later one.
        tokens = json.loads(last)["usage"]["completion_tokens"]
        times += [times[-1]] * (tokens - len(times))
        return Answer(sent_s=sent, tokens_s=tuple(times))

    def _request(self, ask: Ask) -> bytes:
        body = json.dumps(
            {
                "model": self.model,
                "prompt": ask.prompt,
                "max_tokens": ask.max_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self.address}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _read(self, reader: asyncio.StreamReader) -> tuple[list[float], bytes]:
        """When each event with text came, and the last event, which holds the usage."""
        status = await reader.readline()
        if b" 200 " not in status:
            raise HttpError((status + await reader.read()).decode(errors="replace"))
        times: list[float] = []
        last = b""
        while line := await reader.readline():
            if line.startswith(_DONE):
                times.pop()  # of the usage, which brings no token
                return times, last
            if line.startswith(_DATA):
                times.append(perf_counter())
                last = line[len(_DATA) :]
        raise HttpError("the stream ended without [DONE]")
