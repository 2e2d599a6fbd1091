"""A retry with the same Idempotency-Key gets the same answer, from whatever process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from gateway.memory_router import tokens
from tests.support.checkpoints import NANO_K2
from tests.support.service_processes import ServiceProcess, gateway, local_router, running

from .conftest import Gateway

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
KEY = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": [{"role": "user", "content": "What is the weather in Paris?"}]}),
    "tools": (
        CHAT,
        {
            "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
            "tools": [TOOL],
            "logprobs": True,
            "top_logprobs": 2,
        },
    ),
    "choices": (COMPLETIONS, {"prompt": ["Once upon", "A router is"], "n": 2, "logprobs": 1}),
}


@pytest.fixture(scope="module")
def router() -> Iterator[ServiceProcess]:
    service = local_router(NANO_K2)
    with running(service):
        yield service


def ask(service: ServiceProcess, path: str, body: dict[str, Any], **headers: str) -> bytes:
    """The whole body of an answer."""
    with httpx.Client(base_url=f"http://{service.address}", timeout=60, trust_env=False) as http:
        reply = http.post(path, json={"model": "nano-k2", **body}, headers={**KEY, **headers})
    assert reply.status_code == 200, reply.text
    return reply.content


def ask_until(
    service: ServiceProcess, path: str, body: dict[str, Any], events: int, then: Callable[[], None]
) -> bytes:
    """What arrived of a stream on which `then` was done after so many events."""
    got = b""
    with (
        httpx.Client(base_url=f"http://{service.address}", timeout=60, trust_env=False) as http,
        http.stream("POST", path, json={"model": "nano-k2", **body}, headers=KEY) as reply,
    ):
        assert reply.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            for part in reply.iter_raw():
                got += part
                if got.count(b"\n\n") >= events:
                    then()
                    events = 10**9
    return got


def test_a_stream_broken_by_a_killed_gateway_is_the_same_when_asked_again(
    router: ServiceProcess,
) -> None:
    path, body = BODIES["choices"]
    long = {
        **body,
        "temperature": 1.0,
        "max_tokens": 300,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    service = gateway(NANO_K2, router)
    with running(service):
        broken = ask_until(service, path, long, 30, service.kill)
        assert b"[DONE]" not in broken
        service.start()
        again = ask(service, path, long)
    assert again.startswith(broken)
    assert len(again) > len(broken)
    assert again.endswith(b"data: [DONE]\n\n")
    other = gateway(NANO_K2, router)
    with running(other):
        assert ask(other, path, long) == again


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_replicas_give_the_same_bytes(router: ServiceProcess, kind: str, stream: bool) -> None:
    path, body = BODIES[kind]
    sampled = {**body, "temperature": 1.0, "max_tokens": 40, "stream": stream}
    one, two = gateway(NANO_K2, router), gateway(NANO_K2, router)
    with running(one, two):
        first = ask(one, path, sampled)
        assert ask(two, path, dict(reversed(sampled.items()))) == first
        assert ask(one, path, sampled) == first
        bare = KEY["Idempotency-Key"].strip('"')
        assert ask(one, path, sampled, **{"Idempotency-Key": bare}) == first
        assert ask(one, path, sampled, **{"Idempotency-Key": "another"}) != first


def test_the_official_client(gateway: Gateway) -> None:
    """Its own retries have the same key as the first try; a key of one's own goes the same way."""
    gateway.says("hello world<|im_end|>")
    with gateway.client() as client:
        answers = [
            client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "hi"}],
                temperature=1.0,
                extra_headers=KEY,
            )
            for _ in range(2)
        ]
        assert answers[0] == answers[1]
        assert answers[0].created == 0
        assert answers[0].usage is not None
        assert answers[0].usage.prompt_tokens_details is None
        streams = [
            list(
                client.completions.create(
                    model="tiny", prompt="x", stream=True, extra_headers={"Idempotency-Key": "a"}
                )
            )
            for _ in range(2)
        ]
        assert streams[0] == streams[1]
        with pytest.raises(openai.BadRequestError, match="malformed"):
            client.completions.create(
                model="tiny", prompt="x", extra_headers={"Idempotency-Key": "two words"}
            )
    chats, completions = gateway.router.submits[:2], gateway.router.submits[2:]
    assert chats[0].sampling.seed == chats[1].sampling.seed != completions[0].sampling.seed
    assert chats[0].request_id != chats[1].request_id


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_key_used_for_another_body_is_refused(gateway: Gateway, path: str) -> None:
    gateway.says("hello world<|im_end|>")
    body: dict[str, Any] = {"model": "tiny", "prompt": "x"}
    if path == CHAT:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    with gateway.http() as http:

        def status(**changes: object) -> int:
            return http.post(path, json={**body, **changes}, headers=KEY).status_code

        # A body that was refused has used nothing up.
        assert status(temperature=7) == 400
        assert status() == 200
        reply = http.post(path, json={**body, "max_tokens": 3}, headers=KEY)
        assert reply.status_code == 422
        error = reply.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "idempotency_key_reused")
        assert status() == 200
        headers = {**KEY, "Authorization": "Bearer somebody else"}
        assert http.post(path, json={**body, "max_tokens": 3}, headers=headers).status_code == 200
        for key in ('"', "a b", ""):
            reply = http.post(path, json=body, headers={"Idempotency-Key": key})
            assert reply.status_code == 400
            assert reply.json()["error"]["code"] == "invalid_idempotency_key"


def test_a_seed_of_the_request_is_kept_and_without_a_key_each_answer_differs(
    gateway: Gateway,
) -> None:
    gateway.router.reply = tokens([0x61, 0x62])
    body = {"model": "tiny", "prompt": "x", "max_tokens": 2}
    with gateway.http() as http:
        keyed = http.post(COMPLETIONS, json={**body, "seed": 7}, headers=KEY).json()
        drawn = [http.post(COMPLETIONS, json=body).json() for _ in range(2)]
    assert gateway.router.submits[0].sampling.seed == 7
    assert len({submit.sampling.seed for submit in gateway.router.submits}) == 3
    assert len({answer["id"] for answer in (keyed, *drawn)}) == 3
    assert all(answer["created"] > 0 for answer in drawn)
