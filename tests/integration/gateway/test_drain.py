"""A gateway that is told to end, and clients that stop reading."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.memory_router import MemoryRouter, tokens
from tests.support.deadline import wait_until
from tests.support.service_processes import ServiceProcess, running

from .conftest import Gateway
from .test_grpc_link import Servicer, serving

COMPLETIONS = "/v1/completions"
STEP_S = 0.05
BODY: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 60, "stream": True}


@pytest.fixture(scope="module")
def router() -> Iterator[str]:
    """Address of a router that takes its time, on a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    memory = MemoryRouter(reply=tokens([0x61] * 1000), step_s=STEP_S)
    open_one = contextlib.AsyncExitStack()

    async def start() -> int:
        return await open_one.enter_async_context(serving(Servicer(memory)))

    port = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    yield f"127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(open_one.aclose(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


@pytest.fixture
def front(tiny_model: Path, router: str) -> Iterator[ServiceProcess]:
    process = ServiceProcess("gateway", "--model", tiny_model, "--routers", router)
    with running(process):
        yield process


def client_of(service: ServiceProcess) -> httpx.Client:
    return httpx.Client(base_url=f"http://{service.address}", timeout=60, trust_env=False)


def test_sigterm_finishes_what_was_begun_and_refuses_the_rest(front: ServiceProcess) -> None:
    with client_of(front) as reader, client_of(front) as other:
        assert other.get("/health").status_code == 200
        with reader.stream("POST", COMPLETIONS, json=BODY) as reply:
            lines = (line for line in reply.iter_lines() if line)
            next(lines)
            front.process.send_signal(signal.SIGTERM)
            wait_until(lambda: other.get("/health").status_code == 503, "the drain", 2)
            assert other.get("/health").json()["status"] == "draining"
            refused = other.post(COMPLETIONS, json=BODY)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "draining"
            assert refused.headers["retry-after"]
            *_, last = lines
        assert last == "data: [DONE]"
        assert front.process.wait(20) == 0


def test_a_second_signal_ends_it_at_once(front: ServiceProcess) -> None:
    with (
        client_of(front) as reader,
        reader.stream("POST", COMPLETIONS, json={**BODY, "max_tokens": 900}) as reply,
    ):
        # Kept: with the iterator the client would give up the answer.
        lines = reply.iter_lines()
        next(lines)
        front.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert front.process.poll() is None
        front.process.send_signal(signal.SIGTERM)
        assert front.process.wait(10) is not None


def test_a_client_that_reads_nothing_is_taken_for_gone(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = start_gateway(client_stall_s=0.5)
    gateway.says("hello " * 4000)
    value = gateway.registry.get_sample_value
    host, port = gateway.url.removeprefix("http://").split(":")
    body: dict[str, Any] = {"model": "tiny", "prompt": "x", "stream": True, "max_tokens": 4000}
    text = json.dumps(body | {"n": 20}).encode()
    with socket.create_connection((host, int(port))) as stalled:
        stalled.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(text), text)
        )
        wait_until(lambda: value("orrery_gateway_open_streams") == 1, "the stream")
        wait_until(lambda: value("orrery_gateway_open_streams") == 0, "the end of patience", 20)
        assert value("orrery_gateway_open_requests") == 0
        assert not gateway.router.running
