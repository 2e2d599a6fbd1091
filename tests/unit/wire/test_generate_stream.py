"""Many requests share one stream, and each ends in exactly one way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest

from tests.support.deadline import run_async
from wire.channels import new_server
from wire.clients.generate import GenerateStream, RequestStream
from wire.clients.router import RouterClient
from wire.errors import InvalidRequestError, OverloadedError, UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.services import ROUTER, Context, add_router


class EchoRouter:
    """Gives back a request's prompt one token a step; "wait" runs until aborted.

    reading: cleared by a request "stall", after which no more is read until it is set.
    """

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.reading.set()

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
            if submit.request_id == "stall":
                self.reading.clear()
                await self.reading.wait()
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


async def _with_server(use: Callable[[str, EchoRouter], Awaitable[None]]) -> None:
    server, router = new_server(), EchoRouter()
    add_router(server, router)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        await use(f"127.0.0.1:{port}", router)
    finally:
        await server.stop(None)


async def _with_router(use: Callable[[RouterClient], Awaitable[None]]) -> None:
    async def connected(address: str, _: EchoRouter) -> None:
        async with RouterClient(address) as client:
            await use(client)

    await _with_server(connected)


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


async def _channel_closed(client: RouterClient) -> None:
    stream = client.generate()
    waiting = [await stream.submit(submit(f"wait{n}", 1)) for n in range(3)]
    await client.close()
    for request in waiting:
        with pytest.raises(UnavailableError):
            await anext(request)
    assert (stream.lost, stream.open_requests) == (True, 0)
    await stream.close()


@pytest.mark.parametrize("use", [_many, _abort, _lost, _channel_closed])
def test_generate(use: Callable[[RouterClient], Awaitable[None]]) -> None:
    run_async(_with_router(use))


def test_a_submitter_that_leaves_takes_nobody_along() -> None:
    async def scenario(address: str, router: EchoRouter) -> None:
        async with RouterClient(address) as client:
            stream = client.generate()
            innocent = await stream.submit(submit("wait", 1))
            await stream.submit(submit("stall", 1, 2))
            leaver = await _blocked_submit(stream)
            before = stream.open_requests
            leaver.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaver
            assert (stream.lost, stream.open_requests) == (False, before - 1)
            router.reading.set()
            await stream.abort("wait")
            assert [o.finish_reason async for o in innocent] == [pb.FINISH_REASON_ABORT]
            assert await tokens_of(await stream.submit(submit("late", 5, 6))) == [5, 6]
            await stream.close()

    run_async(_with_server(scenario))


async def _blocked_submit(stream: GenerateStream) -> asyncio.Task[RequestStream]:
    """Submits long prompts until one does not get through."""
    for number in range(1000):
        long = submit(f"wait-long-{number}", *[100_000] * 100_000)
        task = asyncio.create_task(stream.submit(long))
        done, _ = await asyncio.wait([task], timeout=0.5)
        if not done:
            return task
    raise AssertionError("every prompt was written")


def test_a_message_that_cannot_be_read_ends_every_request() -> None:
    async def garbage(requests: AsyncIterator[bytes], context: Context) -> None:
        await anext(requests)
        await context.write(b"\xff\xff\xff\xff")
        await anext(requests)

    async def scenario() -> None:
        server = new_server()
        handler = grpc.stream_stream_rpc_method_handler(garbage)
        handlers = grpc.method_handlers_generic_handler(ROUTER, {"Generate": handler})
        server.add_generic_rpc_handlers((handlers,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with RouterClient(f"127.0.0.1:{port}") as client:
            stream = client.generate()
            request = await stream.submit(submit("one", 1))
            with pytest.raises(UnavailableError, match="cannot be read"):
                await anext(request)
            assert (stream.lost, stream.open_requests) == (True, 0)
            await stream.close()
        await server.stop(None)

    run_async(scenario())
