"""Routers that fail, and clients that leave."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import openai
import pytest

from gateway.memory_router import failure, tokens
from tests.support.deadline import wait_until
from wire.errors import ErrorCode
from wire.generated import orrery_pb2 as pb

from .conftest import Gateway

HI: Any = [{"role": "user", "content": "hi"}]
BODY: dict[str, Any] = {"model": "tiny", "messages": HI}
CHAT = "/v1/chat/completions"
STATUS = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: 400,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.BAD_FRAME: 500,
    ErrorCode.EXPERT_NOT_HELD: 503,
    ErrorCode.STALE_EPOCH: 503,
    ErrorCode.DRAINING: 503,
    ErrorCode.OVERLOADED: 429,
    ErrorCode.DEADLINE_EXCEEDED: 504,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.EXPERTS_UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
}


def fails_after(gateway: Gateway, count: int, code: str) -> Callable[[pb.Submit], Iterable[Any]]:
    def reply(submit: pb.Submit) -> Iterable[pb.RequestOutput]:
        yield from (pb.RequestOutput(token_ids=[0x61]) for _ in range(count))
        yield failure(code, "because")

    return reply


@pytest.mark.parametrize("stream", [False, True])
def test_before_the_first_byte_an_error_is_a_status(gateway: Gateway, stream: bool) -> None:
    assert set(STATUS) == set(ErrorCode)
    with gateway.http() as http:
        for code, status in STATUS.items():
            gateway.router.reply = fails_after(gateway, 0, code)
            wait_until(lambda: http.get("/health").status_code == 200, "the router")
            reply = http.post(CHAT, json={**BODY, "stream": stream})
            assert reply.status_code == status, code
            assert reply.json()["error"]["message"] == "because"
            assert ("retry-after" in reply.headers) == (status in (429, 503))


def test_after_the_first_byte_an_error_is_an_event_without_done(gateway: Gateway) -> None:
    gateway.router.reply = fails_after(gateway, 2, "experts_unavailable")
    with gateway.http() as http:
        reply = http.post(CHAT, json={**BODY, "stream": True})
        assert reply.status_code == 200
        events = reply.text.strip().split("\n\n")
        assert '"code":"experts_unavailable"' in events[-1]
        assert "[DONE]" not in reply.text
        assert http.post(CHAT, json=BODY).status_code == 503
    with gateway.client() as client, pytest.raises(openai.APIError, match="because"):
        list(client.chat.completions.create(**BODY, stream=True))


@pytest.mark.parametrize("lose_after", [0, 1, 3])
@pytest.mark.parametrize("stream", [False, True])
def test_another_router_goes_on_where_one_was_lost(
    start_gateway: Callable[..., Gateway], lose_after: int, stream: bool
) -> None:
    gateway = start_gateway(names=("a", "b"))
    gateway.says("hello world<|im_end|>")
    gateway.routers["a"].lose_after = lose_after
    with gateway.client() as client:
        reply: Any = client.completions.create(
            model="tiny", prompt="x", max_tokens=50, stream=stream
        )
        chunks = list(reply) if stream else [reply]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "hello world"
    (first,), (second,) = gateway.routers["a"].submits, gateway.routers["b"].submits
    assert second.sampling == first.sampling
    assert second.prompt_token_ids == first.prompt_token_ids
    ids = gateway.tokenizer.encode_with_special("hello world<|im_end|>")
    assert list(second.output_token_ids) == ids[:lose_after]


def test_the_same_router_goes_on_when_it_is_back(gateway: Gateway) -> None:
    gateway.says("hello world<|im_end|>")
    gateway.router.lose_after = 2
    with gateway.client() as client:
        assert client.completions.create(model="tiny", prompt="x").choices[0].text == "hello world"
    assert len(gateway.router.submits) == 2


def test_a_router_that_stays_away_is_given_up(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(router_wait_s=0.3)
    gateway.says("hello world<|im_end|>")

    def dies(submit: pb.Submit) -> Iterable[pb.RequestOutput]:
        gateway.router.state = "unreachable"
        yield from tokens([0x61, 0x62, 0x63])(submit)

    gateway.router.reply = dies
    gateway.router.lose_after = 2
    with gateway.http() as http:
        reply = http.post(CHAT, json={**BODY, "stream": True})
        assert '"code":"unavailable"' in reply.text
        assert "[DONE]" not in reply.text
        assert http.post(CHAT, json=BODY).status_code == 503
        gateway.router.state = "ready"
        wait_until(lambda: http.get("/health").status_code == 200, "the router")
        gateway.says("hello<|im_end|>")
        assert http.post(CHAT, json=BODY).status_code == 200


def test_a_request_that_kills_routers_is_not_tried_for_ever(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = start_gateway(names=("a", "b", "c", "d", "e"))
    for router in gateway.routers.values():
        router.lose_after = 0
    gateway.says("hello<|im_end|>")
    for router in gateway.routers.values():
        router.lose_after = 0
    with gateway.http() as http:
        assert http.post(CHAT, json=BODY).status_code == 503
    assert sum(len(router.submits) for router in gateway.routers.values()) == 3


def test_a_full_router_is_passed_over(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(names=("a", "b"))
    gateway.says("hello<|im_end|>")
    gateway.routers["a"].reply = fails_after(gateway, 0, "overloaded")
    with gateway.http() as http:
        assert http.post(CHAT, json=BODY).status_code == 200
        gateway.routers["b"].reply = gateway.routers["a"].reply
        assert http.post(CHAT, json=BODY).status_code == 429


def test_the_least_loaded_router_is_asked(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(names=("a", "b"))
    gateway.says("hello" * 50)
    for router in gateway.routers.values():
        router.step_s = 0.02
    with gateway.client() as client, contextlib.ExitStack() as stack:
        for _ in range(4):
            stream = client.completions.create(model="tiny", prompt="x", stream=True)
            stack.callback(stream.close)
            next(iter(stream))
        assert [len(router.submits) for router in gateway.routers.values()] == [2, 2]


@pytest.mark.parametrize("n", [1, 2])
def test_a_client_that_leaves_a_stream_aborts_in_the_engine(gateway: Gateway, n: int) -> None:
    gateway.says("hello " * 500)
    gateway.router.step_s = 0.01
    with gateway.client() as client:
        stream = client.chat.completions.create(**BODY, stream=True, n=n)
        next(iter(stream))
        assert len(gateway.router.running) == n
        stream.close()
    wait_until(lambda: not gateway.router.running, "the abort", 10)
    ids = {submit.request_id for submit in gateway.router.submits}
    assert set(gateway.router.aborted) == ids


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_it_waits_aborts_in_the_engine(
    gateway: Gateway, stream: bool
) -> None:
    gateway.says("hello " * 500)
    gateway.router.step_s = 30 if stream else 0.01
    with gateway.client() as client, pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(**BODY, stream=stream)
    wait_until(lambda: not gateway.router.running, "the abort", 10)
    assert gateway.router.aborted == [gateway.router.submits[0].request_id]
    labels = {"path": CHAT, "code": "499"}
    wait_until(
        lambda: (
            gateway.registry.get_sample_value("orrery_gateway_http_requests_total", labels) == 1
        ),
        "the count",
    )


def test_open_streams_are_counted(gateway: Gateway) -> None:
    gateway.says("hello " * 500)
    gateway.router.step_s = 0.01
    value = gateway.registry.get_sample_value
    with gateway.client() as client:
        stream = client.chat.completions.create(**BODY, stream=True)
        next(iter(stream))
        assert value("orrery_gateway_open_streams") == 1
        stream.close()
    wait_until(lambda: value("orrery_gateway_open_streams") == 0, "the stream's end")


def test_bits_are_never_mixed_from_different_numerics(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = start_gateway(names=("a", "b", "c"), other_numerics="b", router_wait_s=1.0)
    gateway.says("hello world<|im_end|>")
    gateway.routers["a"].lose_after = 2
    with gateway.client() as client:
        assert client.completions.create(model="tiny", prompt="x").choices[0].text == "hello world"
    assert [len(router.submits) for router in gateway.routers.values()] == [1, 0, 1]


def test_without_equal_numerics_a_started_answer_fails_clearly(
    start_gateway: Callable[..., Gateway],
) -> None:
    for exact in (True, False):
        gateway = start_gateway(
            names=("a", "b"), other_numerics="b", router_wait_s=0.5, exact=exact
        )
        gateway.says("hello world<|im_end|>")

        def dies(submit: pb.Submit, gateway: Gateway = gateway) -> Iterable[pb.RequestOutput]:
            gateway.routers["a"].state = "unreachable"
            yield from tokens([0x61, 0x62])(submit)

        gateway.routers["a"].reply = dies
        gateway.routers["a"].lose_after = 1
        with gateway.http() as http:
            reply = http.post(CHAT, json={**BODY, "stream": True})
        assert ("no router with the same numerics" in reply.text) == exact
        assert ("[DONE]" in reply.text) == (not exact)
