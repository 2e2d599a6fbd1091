"""Every kind of bad frame gets a typed error, and the good ones beside it stay right."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from experts_service.config import WorkerConfig
from experts_service.service import WorkerService
from tests.support.deadline import run_async
from tests.support.dispatching import TERM, request, talking
from tests.support.expert_workers import ExpertModel, expert_major, serving
from wire.carriers.carrier import INLINE, LOCAL
from wire.channels import open_channel
from wire.codec import decode_answer, encode_request
from wire.envelope import PREFIX_BYTES, message_size, prefix
from wire.errors import BadFrameError, ErrorCode, UnavailableError
from wire.frames import DispatchReply, DispatchRequest, ErrorReply
from wire.header import BODY_START
from wire.placement import Epoch
from wire.services import dispatch_stream

BAD_ID = 900


def patched(offset: int, form: str, value: object) -> Callable[[DispatchRequest], bytes]:
    """A frame with one header field overwritten; the offset counts from the frame's start."""

    def make(good: DispatchRequest) -> bytes:
        message = bytearray(encode_request(good))
        struct.pack_into(form, message, PREFIX_BYTES + offset, value)
        return bytes(message)

    return make


def changed(**fields: Any) -> Callable[[DispatchRequest], bytes]:
    """A well-formed frame with other content."""
    return lambda good: encode_request(replace(good, **fields))


def content(change: Callable[[DispatchRequest], Mapping[str, Any]]) -> Callable[..., bytes]:
    return lambda good: encode_request(replace(good, **change(good)))


def with_expert(place: int, expert: int) -> Callable[[DispatchRequest], Mapping[str, Any]]:
    def change(good: DispatchRequest) -> Mapping[str, Any]:
        experts = good.experts.copy()
        experts[place] = expert
        return {"experts": experts}

    return change


def with_weight(value: float) -> Callable[[DispatchRequest], Mapping[str, Any]]:
    def change(good: DispatchRequest) -> Mapping[str, Any]:
        weights = good.weights.copy()
        weights[1] = value
        return {"weights": weights}

    return change


def reframed(change: Callable[[bytes], bytes]) -> Callable[[DispatchRequest], bytes]:
    """The frame's bytes changed, in an envelope of the right length."""

    def make(good: DispatchRequest) -> bytes:
        frame = change(encode_request(good)[PREFIX_BYTES:])
        return prefix(len(frame)) + frame

    return make


def swap_first_two(good: DispatchRequest) -> Mapping[str, Any]:
    experts = good.experts.copy()
    experts[[0, 1]] = experts[[1, 0]]
    return {"experts": experts}


def bad_combine_flag(good: DispatchRequest) -> bytes:
    message = bytearray(encode_request(good))
    message[BODY_START + 16] = 7
    return bytes(message)


B, E, S = ErrorCode.BAD_FRAME, ErrorCode.EXPERT_NOT_HELD, ErrorCode.STALE_EPOCH
# name: (message, expected code, whether the error can name the request)
KINDS: Mapping[str, tuple[Callable[[DispatchRequest], bytes], ErrorCode, bool]] = {
    "empty message": (lambda good: b"", B, False),
    "not protobuf": (lambda good: b"GET / HTTP/1.1", B, False),
    "another protobuf field": (lambda good: b"\x12\x01a", B, False),
    "empty frame": (lambda good: b"\x0a\x00", B, False),
    "envelope too long": (lambda good: prefix(9) + b"abc", B, False),
    "envelope cut": (lambda good: encode_request(good)[:-1], B, False),
    "two frames in one message": (lambda good: encode_request(good) * 2, B, False),
    "header cut": (reframed(lambda frame: frame[:30]), B, False),
    "magic": (patched(0, "<4s", b"YRRO"), B, False),
    "version": (patched(4, "<B", 2), B, True),
    "kind unknown": (patched(5, "<B", 9), B, True),
    "kind reply": (patched(5, "<B", 2), B, True),
    "dtype unknown": (patched(6, "<B", 77), B, True),
    "reserved byte": (patched(7, "<B", 1), B, True),
    "request id zero": (patched(8, "<Q", 0), B, False),
    "rows zero": (patched(36, "<I", 0), B, True),
    "rows too many": (patched(36, "<I", 4), B, True),
    "rows huge": (patched(36, "<I", 2**32 - 1), B, True),
    "hidden wrong": (patched(40, "<I", 63), B, True),
    "hidden huge": (patched(40, "<I", 2**32 - 1), B, True),
    "pairs wrong": (patched(44, "<I", 11), B, True),
    "pairs huge": (patched(44, "<I", 2**32 - 1), B, True),
    "body length wrong": (patched(48, "<I", 1), B, True),
    "body cut": (reframed(lambda frame: frame[:-16]), B, True),
    "body too long": (reframed(lambda frame: frame + bytes(16)), B, True),
    "layer without experts": (changed(layer=0), B, True),
    "layer unknown": (changed(layer=999), B, True),
    "dtype of another model": (content(lambda good: {"x": good.x.bfloat16()}), B, True),
    "width of another model": (content(lambda good: {"x": good.x[:, :32]}), B, True),
    "a row without experts": (changed(counts=np.array([0, 6, 6], np.uint8)), B, True),
    "counts beyond the pairs": (changed(counts=np.array([4, 4, 5], np.uint8)), B, True),
    "more experts than top-k": (
        changed(counts=np.array([3, 3, 6], np.uint8), combine=np.zeros(3, np.bool_)),
        B,
        True,
    ),
    "combine of a part": (
        changed(counts=np.array([3, 5, 4], np.uint8), combine=np.array([1, 0, 0], np.bool_)),
        B,
        True,
    ),
    "combine flag of seven": (bad_combine_flag, B, True),
    "experts not ascending": (content(swap_first_two), B, True),
    "expert twice": (content(lambda good: with_expert(1, int(good.experts[0]))(good)), B, True),
    "weight not a number": (content(with_weight(float("nan"))), B, True),
    "weight infinite": (content(with_weight(float("inf"))), B, True),
    "expert beyond the model": (content(with_expert(3, 60000)), E, True),
    "older term": (changed(epoch=Epoch(term=TERM - 1, counter=99)), S, True),
}


def test_there_are_enough_kinds() -> None:
    assert len(KINDS) >= 20


@pytest.mark.parametrize("carrier", [INLINE, LOCAL])
def test_each_kind_on_one_live_stream(model: ExpertModel, carrier: str) -> None:
    run_async(_all_kinds(model, carrier))


async def _all_kinds(model: ExpertModel, carrier: str) -> None:
    layer = model.config.moe_layers[0]
    async with serving(model.path, expert_major(model.config, 1)) as services:
        service = services["expert-0"]
        await service.load(Epoch(term=TERM, counter=0), {})
        async with talking(service.address, carrier) as stream:
            for number, (name, (make, code, names_request)) in enumerate(KINDS.items(), start=1):
                good = request(model, number, rows=number % 7 + 1, seed=number)
                x, idx, weights = model.rows(number % 7 + 1, number)
                bad = make(request(model, BAD_ID, seed=number))
                if carrier == LOCAL and not is_whole(bad):
                    # Not to be told from what comes behind it: the connection ends.
                    continue
                # Before and behind the bad one, without waiting between them.
                await stream.write(encode_request(good))
                await stream.write(bad)
                await stream.write(encode_request(replace(good, request_id=1000 + number)))
                answers = {}
                for _ in range(3):
                    answer = decode_answer(await stream.read())
                    answers[answer.request_id] = answer
                error = answers[BAD_ID if names_request else 0]
                assert isinstance(error, ErrorReply), name
                assert error.code == code, (name, error)
                assert error.message, name
                expected = await (await model.local.dispatch(layer, x, idx, weights, None))
                for request_id in (number, 1000 + number):
                    reply = answers[request_id]
                    assert isinstance(reply, DispatchReply), (name, reply)
                    assert torch.equal(reply.rows, expected.rows), name


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1", b"\x0a" + b"\xff" * 4 + b"\x7f"])
def test_garbage_on_a_local_socket_is_answered_and_ends_it(
    model: ExpertModel, garbage: bytes
) -> None:
    run_async(_garbage(model, garbage))


async def _garbage(model: ExpertModel, garbage: bytes) -> None:
    async with serving(model.path, expert_major(model.config, 1)) as services:
        service = services["expert-0"]
        async with talking(service.address, LOCAL) as stream:
            await stream.write(encode_request(request(model, 1)) + garbage)
            assert isinstance(decode_answer(await stream.read()), DispatchReply)
            error = decode_answer(await stream.read())
            assert isinstance(error, ErrorReply)
            assert (error.request_id, error.code) == (0, "bad_frame")
            with pytest.raises(UnavailableError):
                await stream.read()
        async with talking(service.address, LOCAL) as stream:
            await stream.write(encode_request(request(model, 2)))
            assert isinstance(decode_answer(await stream.read()), DispatchReply)
        assert await service.drain(5.0)


def is_whole(message: bytes) -> bool:
    try:
        return message_size(message) == len(message)
    except (BadFrameError, ValueError):
        return False


def test_bad_frames_are_counted(model: ExpertModel) -> None:
    run_async(_counted(model))


async def _counted(model: ExpertModel) -> None:
    registry = CollectorRegistry()
    service = WorkerService(WorkerConfig(worker_id="w", model=model.path, experts={}), registry)
    await service.start()
    await service.wait_ready()
    async with open_channel(service.address) as channel:
        stream = dispatch_stream(channel)()
        await stream.write(b"nonsense")
        await stream.write(encode_request(request(model, 1)))
        codes = {decode_answer(await stream.read()).code for _ in range(2)}
        assert codes == {"bad_frame", "expert_not_held"}
        stream.cancel()
    await service.stop()
    for code in codes:
        assert registry.get_sample_value("orrery_worker_bad_frames_total", {"code": code}) == 1


@pytest.mark.parametrize("expert", [0, 15])
def test_an_expert_not_held_is_named(model: ExpertModel, expert: int) -> None:
    run_async(_names_expert(model, expert))


async def _names_expert(model: ExpertModel, expert: int) -> None:
    layer = model.config.moe_layers[0]
    others = [e for e in range(model.config.n_routed_experts) if e != expert]
    async with (
        serving(model.path, {"w": {layer: others}}) as services,
        open_channel(services["w"].address) as channel,
    ):
        stream = dispatch_stream(channel)()
        bad = replace(
            request(model, 7, rows=1),
            counts=np.array([2], np.uint8),
            combine=np.zeros(1, np.bool_),
            experts=np.array(sorted((expert, 7)), np.uint16),
            weights=np.ones(2, np.float32),
        )
        await stream.write(encode_request(bad))
        answer = decode_answer(await stream.read())
        assert answer == ErrorReply(
            request_id=7,
            code="expert_not_held",
            message=f"expert {expert} of layer {layer} is not held here",
            expert=expert,
        )
        stream.cancel()
