"""Routers are lost while they answer; clients get the bytes that they would have got anyway.

Answers are asked for with an Idempotency-Key, so that even ids are the same and whole bodies can be
compared with those of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from gateway.config import GatewayConfig
from gateway.grpc_link import GrpcLink
from gateway.http import create_asgi
from gateway.routers import StaticDirectory
from monitoring.request_notes import PATH
from tests.support.checkpoints import NANO_K2
from tests.support.cut_links import CutLink, Scissors
from tests.support.http_server import serve_http
from tests.support.ports import free_port
from tests.support.service_processes import ServiceProcess, local_router, running

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
QUESTION = [{"role": "user", "content": "What is the weather in Paris and in Rome?"}]
LENGTH = 48
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": (COMPLETIONS, {"prompt": "Once", "temperature": 0, "logprobs": 2}),
    "penalties": (
        COMPLETIONS,
        {
            "prompt": "The router is the router is the",
            "temperature": 0.9,
            "presence_penalty": 1.0,
            "frequency_penalty": 0.7,
            "repetition_penalty": 1.2,
            "logit_bias": {"11": 3.0, "13": -50.0},
            "min_tokens": 20,
        },
    ),
    "choices": (CHAT, {"messages": QUESTION, "temperature": 1.0, "n": 3, "logprobs": True}),
    "thinking": (CHAT, {"messages": QUESTION, "temperature": 0.6, "thinking": True}),
    "tools": (CHAT, {"messages": QUESTION, "tools": [WEATHER], "temperature": 0.0}),
}


@dataclass(frozen=True)
class Site:
    """Router processes, and a gateway over links that the test cuts."""

    routers: dict[str, ServiceProcess]
    scissors: Scissors
    url: str
    notes_url: str

    def ask(self, path: str, body: dict[str, Any], *after: int) -> str:
        """The whole of a streamed answer; each number is a cut, see `Scissors`."""
        self.scissors.after[:] = after
        everything = {
            "model": "nano-k2",
            "max_tokens": LENGTH,
            "stream": True,
            "stream_options": {"include_usage": True},
            **body,
        }
        with httpx.Client(base_url=self.url, timeout=120, trust_env=False) as http:
            key = str(zlib.crc32(json.dumps([path, everything]).encode()))
            reply = http.post(path, json=everything, headers={"Idempotency-Key": key})
        assert reply.status_code == 200, reply.text
        return reply.text

    def notes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(self.notes_url, trust_env=False).json()["notes"]
        return found


@contextlib.contextmanager
def site(*routers: ServiceProcess, router_wait_s: float = 60.0) -> Iterator[Site]:
    scissors = Scissors()
    metrics = f"127.0.0.1:{free_port()}"
    config = GatewayConfig(
        model=NANO_K2, router_wait_s=router_wait_s, router_poll_s=0.1, metrics_listen=metrics
    )
    app = create_asgi(
        config,
        StaticDirectory(tuple(router.address for router in routers)),
        connect=lambda address: CutLink(GrpcLink(address), address, scissors),
        registry=CollectorRegistry(),
    )
    with serve_http(app) as url:
        by_address = {router.address: router for router in routers}
        yield Site(by_address, scissors, url, f"http://{metrics}{PATH}")


@pytest.fixture(scope="module")
def pair() -> Iterator[Site]:
    routers = local_router(NANO_K2), local_router(NANO_K2)
    with running(*routers), site(*routers) as both:
        yield both


@pytest.mark.parametrize("case", CASES)
def test_no_break_can_be_seen_wherever_it_falls(pair: Site, case: str) -> None:
    path, body = CASES[case]
    want = pair.ask(path, body)
    assert want.endswith("data: [DONE]\n\n")
    pair.scissors.cuts = 0
    for after in (0, 1, 2, 7, 16, LENGTH - 1):
        assert pair.ask(path, body, after) == want, after
    assert pair.ask(path, body, 5, 6, 7, 8, 9, 10) == want
    assert pair.scissors.cuts > 6


def test_a_stop_string_may_span_the_break(pair: Site) -> None:
    path, body = COMPLETIONS, {"prompt": "Once", "temperature": 0.8, "seed": 5, "logprobs": 0}
    events = [
        json.loads(line[6:])
        for line in pair.ask(path, body).splitlines()
        if line.startswith("data: {")
    ]
    pieces = [
        text for e in events if e["choices"] for text in e["choices"][0]["logprobs"]["tokens"]
    ]
    at = next(
        i
        for i in range(8, len(pieces) - 3)
        if "".join(pieces).count("".join(pieces[i : i + 3])) == 1
    )
    stop = "".join(pieces[at : at + 3])[1:]
    stopped = {**body, "stop": [stop, "never said"]}
    want = pair.ask(path, stopped)
    assert '"finish_reason":"stop"' in want
    for after in range(at - 1, at + 3):
        assert pair.ask(path, stopped, after) == want, after


def test_two_routers_one_is_killed(pair: Site) -> None:
    path, body = CASES["choices"]
    long = {**body, "max_tokens": 200, "ignore_eos": True}
    want = pair.ask(path, long)
    killed: list[str] = []

    def kill(address: str) -> None:
        if not killed:
            killed.append(address)
            pair.routers[address].kill()

    pair.scissors.then = kill
    try:
        assert pair.ask(path, long, 60) == want
        (address,) = killed
        (other,) = pair.routers.keys() - {address}
        name = json.loads(want[6 : want.index("\n")])["id"]
        moved = [note for note in pair.notes() if note["requests"][0].startswith(name)]
        assert moved
        assert {note["kind"] for note in moved} == {"requests_moved"}
        assert {note["text"] for note in moved} == {f"{address} was lost, they go on at {other}"}
    finally:
        pair.scissors.then = lambda address: None
        for address in killed:
            pair.routers[address].start()


def test_a_router_that_hangs_is_left_in_the_end(pair: Site) -> None:
    """Its connection stands, but gRPC's keepalive finds nobody behind it."""
    path, body = CASES["choices"]
    long = {**body, "max_tokens": 200, "ignore_eos": True}
    want = pair.ask(path, long)
    stopped: list[int] = []

    def stop(address: str) -> None:
        if not stopped:
            stopped.append(pair.routers[address].process.pid)
            os.kill(stopped[0], signal.SIGSTOP)

    pair.scissors.then = stop
    try:
        assert pair.ask(path, long, 60) == want
    finally:
        pair.scissors.then = lambda address: None
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    # It comes back, and what it says of the requests that left it reaches nobody.
    assert pair.ask(path, long) == want


def test_the_only_router_is_killed_and_started_again() -> None:
    router = local_router(NANO_K2)
    path, body = CASES["tools"]
    with running(router), site(router) as alone:
        want = alone.ask(path, body)
        assert '"tool_calls"' in want

        def restart(address: str) -> None:
            router.kill()
            threading.Thread(target=router.start).start()

        alone.scissors.then = restart
        assert alone.ask(path, body, 12) == want
        assert [note["kind"] for note in alone.notes()] == ["requests_moved"]
        # Without a stream too, and when it dies before the first token.
        assert alone.ask(path, body, 0) == want


def test_a_router_that_stays_away_ends_the_stream_with_an_error() -> None:
    router = local_router(NANO_K2)
    with running(router), site(router, router_wait_s=1.0) as alone:
        alone.scissors.then = lambda address: router.kill()
        got = alone.ask(COMPLETIONS, {"prompt": "Once", "ignore_eos": True}, 12)
        *chunks, last = [line for line in got.splitlines() if line]
        assert len(chunks) > 5
        error = json.loads(last[6:])["error"]
        assert (error["type"], error["code"]) == ("server_error", "unavailable")
        (note,) = alone.notes()
        assert note["kind"] == "requests_failed"
        assert note["text"].startswith(f"{router.address} was lost: no router")
