"""A router, asked over gRPC on one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from time import perf_counter

from benchmarks.serving.load import Answer, Ask
from wire.clients.generate import GenerateStream
from wire.clients.router import RouterClient
from wire.errors import OrreryError
from wire.generated import orrery_pb2 as pb


def greedy(request_id: str, ask: Ask) -> pb.Submit:
    """A request for the likeliest tokens, exactly as many as asked for."""
    sampling = pb.SamplingParams(
        temperature=0.0,
        top_p=1.0,
        repetition_penalty=1.0,
        max_tokens=ask.max_tokens,
        ignore_eos=True,
    )
    return pb.Submit(request_id=request_id, prompt_token_ids=ask.prompt, sampling=sampling)


class GrpcSide:
    """All requests share one stream, as those of a gateway do."""

    def __init__(self, name: str, stream: GenerateStream) -> None:
        self.name = name
        self.takes_arrivals = True
        self.versions: Mapping[str, str] = {}
        self._stream = stream
        self._number = count()

    async def run(self, asks: Sequence[Ask]) -> list[Answer]:
        began = perf_counter()
        return list(await asyncio.gather(*(self._one(ask, began) for ask in asks)))

    async def _one(self, ask: Ask, began: float) -> Answer:
        if ask.at_s:
            await asyncio.sleep(began + ask.at_s - perf_counter())
        submit = greedy(f"bench-{next(self._number)}", ask)
        times: list[float] = []
        ids: list[int] = []
        sent = perf_counter()
        async for output in await self._stream.submit(submit):
            if output.HasField("error"):
                raise OrreryError(output.error.message)
            times += [perf_counter()] * len(output.token_ids)
            ids += output.token_ids
        return Answer(sent_s=sent, tokens_s=tuple(times), token_ids=tuple(ids))


@asynccontextmanager
async def grpc_side(name: str, router: str) -> AsyncIterator[GrpcSide]:
    """`router`: its address."""
    async with RouterClient(router) as client:
        stream = client.generate()
        try:
            yield GrpcSide(name, stream)
        finally:
            await stream.close()
