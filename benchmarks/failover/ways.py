"""The two ways to ask: a router's gRPC stream, and a gateway's HTTP SSE."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from benchmarks.failover.wishes import Wish
from wire.clients.generate import GenerateStream
from wire.clients.router import RouterClient
from wire.errors import OrreryError, error_for

Piece = object
"""A token as it came: its id by gRPC, its text and log probability by HTTP."""


class Way(Protocol):
    def ask(self, request_id: str, wish: Wish, tokens: int) -> AsyncIterator[Sequence[Piece]]:
        """The pieces of one answer, as many at a time as came together.

        Raises:
            OrreryError, httpx.HTTPError: the request failed.
        """
        ...

    async def close(self) -> None: ...


class GrpcWay:
    """All requests on one stream to one router."""

    def __init__(self, address: str) -> None:
        self._client = RouterClient(address)
        self._stream: GenerateStream | None = None

    async def ask(self, request_id: str, wish: Wish, tokens: int) -> AsyncIterator[Sequence[Piece]]:
        if self._stream is None:
            self._stream = self._client.generate()
        async for output in await self._stream.submit(wish.submit(request_id, tokens)):
            if output.HasField("error"):
                raise error_for(output.error.code, output.error.message)
            yield list(output.token_ids)

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.close()
        await self._client.close()


@dataclass(kw_only=True)
class HttpWay:
    """Streaming completions of a gateway.

    url: asked anew for each attempt, so that another gateway can be tried.
    attempts: so often a request is sent whose connection breaks. If it may be more than once, it
        has no seed, but a key by which the next gateway draws the same one.
    """

    url: Callable[[int], str]
    model: str
    attempts: int = 1
    timeout_s: float = 120.0
    _client: httpx.AsyncClient | None = field(default=None)

    async def ask(self, request_id: str, wish: Wish, tokens: int) -> AsyncIterator[Sequence[Piece]]:
        had: list[Piece] = []
        for attempt in range(self.attempts):
            place = 0
            try:
                async for pieces in self._once(self.url(attempt), wish, tokens):
                    known = had[place : place + len(pieces)]
                    if pieces[: len(known)] != known:
                        raise OrreryError("a retry brought something else than what broke off")
                    place += len(pieces)
                    if fresh := pieces[len(known) :]:
                        had += fresh
                        yield fresh
                return
            except (httpx.TransportError, httpx.StreamError):
                if attempt + 1 == self.attempts:
                    raise

    async def _once(self, url: str, wish: Wish, tokens: int) -> AsyncIterator[Sequence[Piece]]:
        if self._client is None:
            self._client = httpx.AsyncClient(trust_env=False, timeout=self.timeout_s)
        async with self._client.stream(
            "POST",
            f"{url}/v1/completions",
            json=wish.body(self.model, tokens, seeded=self.attempts == 1),
            headers={"Idempotency-Key": wish.key} if self.attempts > 1 else {},
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                raise OrreryError(f"HTTP {answer.status_code}: {(await answer.aread()).decode()}")
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    return
                if line.startswith("data: "):
                    yield _pieces(json.loads(line.removeprefix("data: ")))
        raise httpx.RemoteProtocolError("the stream ended without [DONE]")

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()


def _pieces(event: dict[str, object]) -> list[Piece]:
    if "error" in event:
        raise OrreryError(str(event["error"]))
    found: list[Piece] = []
    choices = event.get("choices")
    assert isinstance(choices, list)
    for choice in choices:
        told = choice.get("logprobs") or {"tokens": [], "token_logprobs": []}
        found += zip(told["tokens"], told["token_logprobs"], strict=True)
    return found
