"""Many requests share one stream, and each ends in exactly one way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from tests.support.deadline import run_async
from wire.channels import new_server
from wire.clients.generate import GenerateStream, RequestStream
from wire.clients.router import RouterClient
from wire.errors import InvalidRequestError, OverloadedError, UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.services import Context, add_router


class EchoRouter:
    """Gives back a request's prompt one token a step; "wait" runs until aborted."""

    async def generate(self, requests: AsyncIterator[pb.GenerateRequest], context: Context) -> None:
        async for request in requests:
            if request.WhichOneof("message") == "abort":
                await context.write(step(request.abort.request_id, [], pb.FINISH_REASON_ABORT))
                continue
            submit = request.submit
            if submit.request_id == "break":
                await context.abort(grpc.StatusCode.INTERNAL, "broken")
            if submit.request_id == "refuse all":
                raise OverloadedError("too much")
            if submit.request_id.startswith("wait"):
                continue
            for token in submit.prompt_token_ids[:-1]:
                await context.write(step(submit.request_id, [token]))
            last = submit.prompt_token_ids[-1:]
            await context.write(step(submit.request_id, last, pb.FINISH_REASON_LENGTH))

    async def set_placement(self, request: pb.Placement) -> pb.RouterDescription:
        return pb.RouterDescription(epoch=request.epoch)

    async def describe(self, request: pb.DescribeRequest) -> pb.RouterDescription:
        return pb.RouterDescription(router_id="echo")

    async def drain(self, request: pb.DrainRequest) -> pb.DrainResponse:
        return pb.DrainResponse(drained=True)


def step(
    request_id: str, tokens: list[int], reason: pb.FinishReason = pb.FINISH_REASON_UNSPECIFIED
) -> pb.StepOutput:
    output = pb.RequestOutput(request_id=request_id, token_ids=tokens, finish_reason=reason)
    return pb.StepOutput(outputs=[output, pb.RequestOutput(request_id="nobody's")])


def submit(request_id: str, *tokens: int) -> pb.Submit:
    return pb.Submit(request_id=request_id, prompt_token_ids=tokens)


async def tokens_of(stream: RequestStream) -> list[int]:
    return [token async for output in stream for token in output.token_ids]


async def _with_router(use: object) -> None:
    server = new_server()
    add_router(server, EchoRouter())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with RouterClient(f"127.0.0.1:{port}") as client:
            await use(client)  # type: ignore[operator]
    finally:
        await server.stop(None)


async def _many(client: RouterClient) -> None:
    stream = client.generate()
    prompts = {f"r{n}": list(range(n, n + 10)) for n in range(50)}
    running = {name: await stream.submit(submit(name, *ids)) for name, ids in prompts.items()}
    results = await asyncio.gather(*(tokens_of(request) for request in running.values()))
    assert dict(zip(running, results, strict=True)) == prompts
    assert stream.open_requests == 0
    await stream.close()
    assert (await client.describe()).router_id == "echo"
    assert await client.drain(1.0)


async def _abort(client: RouterClient) -> None:
    stream = client.generate()
    waiting = await stream.submit(submit("wait", 1))
    with pytest.raises(InvalidRequestError):
        await stream.submit(submit("wait", 1))
    other = await stream.submit(submit("other", 7, 8))
    await stream.abort("wait")
    await stream.abort("never heard of")
    outputs = [output async for output in waiting]
    assert [output.finish_reason for output in outputs] == [pb.FINISH_REASON_ABORT]
    assert await tokens_of(other) == [7, 8]
    again = await stream.submit(submit("wait", 1))
    await stream.close()
    with pytest.raises(UnavailableError):
        await anext(again)
    with pytest.raises(StopAsyncIteration):
        await anext(again)


async def _lost(client: RouterClient) -> None:
    for breaker in ("break", "refuse all"):
        stream: GenerateStream = client.generate()
        waiting = [await stream.submit(submit(f"wait{n}", 1)) for n in range(3)]
        waiting.append(await stream.submit(submit(breaker, 1)))
        for request in waiting:
            with pytest.raises(UnavailableError):
                await anext(request)
        assert stream.lost
        with pytest.raises(UnavailableError):
            await stream.submit(submit("late", 1))
        await stream.abort("wait0")
        await stream.close()


@pytest.mark.parametrize("use", [_many, _abort, _lost])
def test_generate(use: object) -> None:
    run_async(_with_router(use))
