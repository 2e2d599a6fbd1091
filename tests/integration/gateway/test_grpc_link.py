"""The gateway's way to a router over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from gateway.generation import Generator
from gateway.grpc_link import GrpcLink
from gateway.memory_router import MemoryRouter, tokens
from gateway.routers import RouterPool, StaticDirectory
from monitoring.metrics import GatewayMetrics
from monitoring.request_notes import RequestNotes
from tests.support.deadline import run_async, wait_until_async
from wire.channels import new_server
from wire.errors import UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.services import Context, add_router


class Servicer:
    """A `MemoryRouter` over gRPC."""

    def __init__(self, router: MemoryRouter) -> None:
        self.router = router
        self.streams = 0

    async def generate(self, requests: AsyncIterator[pb.GenerateRequest], context: Context) -> None:
        self.streams += 1
        outputs: asyncio.Queue[pb.RequestOutput] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write(outputs, context))
            running = {}
            async for message in requests:
                if message.HasField("submit"):
                    task = group.create_task(self._answer(message.submit, outputs))
                    running[message.submit.request_id] = task
                else:
                    await self.router.abort(message.abort.request_id)
                    running[message.abort.request_id].cancel()
            for task in (writer, *running.values()):
                task.cancel()

    async def _answer(self, submit: pb.Submit, outputs: asyncio.Queue[pb.RequestOutput]) -> None:
        async for output in await self.router.submit(submit):
            outputs.put_nowait(output)

    async def _write(self, outputs: asyncio.Queue[pb.RequestOutput], context: Context) -> None:
        while True:
            await context.write(pb.StepOutput(outputs=[await outputs.get()]))

    async def set_placement(self, request: pb.Placement) -> pb.RouterDescription:
        return await self.router.describe()

    async def describe(self, request: pb.DescribeRequest) -> pb.RouterDescription:
        return await self.router.describe()

    async def drain(self, request: pb.DrainRequest) -> pb.DrainResponse:
        return pb.DrainResponse(drained=True)


@contextlib.asynccontextmanager
async def serving(servicer: Servicer, port: int = 0) -> AsyncIterator[int]:
    server = new_server()
    add_router(server, servicer)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def generating(port: int) -> AsyncIterator[Generator]:
    pool = RouterPool(StaticDirectory((f"127.0.0.1:{port}",)), GrpcLink, poll_s=0.05)
    await pool.start()
    try:
        yield Generator(pool=pool, notes=notes(), router_wait_s=5.0)
    finally:
        await pool.stop()


def notes() -> RequestNotes:
    return RequestNotes(GatewayMetrics(CollectorRegistry()).request_notes)


async def ids(generator: Generator) -> list[int]:
    params = pb.SamplingParams(max_tokens=1000)
    return [i async for output in generator.run("test", [1], params) for i in output.token_ids]


def test_many_requests_share_one_stream() -> None:
    async def run() -> None:
        servicer = Servicer(MemoryRouter(reply=tokens(list(range(50)))))
        async with serving(servicer) as port, generating(port) as generator:
            results = await asyncio.gather(*(ids(generator) for _ in range(20)))
        assert results == [list(range(50))] * 20
        assert servicer.streams == 1

    run_async(run())


def test_a_cancelled_request_leaves_the_others_alone() -> None:
    async def run() -> None:
        router = MemoryRouter(reply=tokens(list(range(200))), step_s=0.005)
        servicer = Servicer(router)
        async with serving(servicer) as port, generating(port) as generator:
            stays = asyncio.create_task(ids(generator))
            for pause in (0.0, 0.0, 0.001, 0.01, 0.02, 0.1):
                leaves = asyncio.create_task(ids(generator))
                await asyncio.sleep(pause)
                leaves.cancel()
                await asyncio.gather(leaves, return_exceptions=True)
            assert await stays == list(range(200))
            assert servicer.streams == 1
            await wait_until_async(lambda: not router.running, "the aborts")

    run_async(run())


def test_a_router_that_was_killed_and_came_back_goes_on() -> None:
    async def run() -> None:
        router = MemoryRouter(reply=tokens(list(range(100))), step_s=0.005)
        async with contextlib.AsyncExitStack() as stack:
            async with serving(Servicer(router)) as port:
                generator = await stack.enter_async_context(generating(port))
                work = asyncio.create_task(ids(generator))
                await wait_until_async(lambda: len(router.running) > 0, "the request")
                await asyncio.sleep(0.1)
            async with serving(Servicer(router), port):
                assert await work == list(range(100))
        assert len(router.submits) == 2
        assert list(router.submits[1].output_token_ids) == list(
            range(len(router.submits[1].output_token_ids))
        )
        assert router.submits[1].output_token_ids

    run_async(run())


def test_a_router_that_is_not_there() -> None:
    async def run() -> None:
        async with generating(1) as generator:
            generator = Generator(pool=generator.pool, notes=notes(), router_wait_s=0.2)
            with pytest.raises(UnavailableError, match="no router was ready"):
                await ids(generator)

    run_async(run())
