"""What a worker did not foresee ends in an error that is said, never in silence."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest

from experts_service import admission, answering, service
from experts_service.config import WorkerConfig
from experts_service.quick_answers import QuickAnswers
from experts_service.service import WorkerService
from experts_service.status import WorkerState
from tests.support.deadline import run_async
from tests.support.dispatching import request
from tests.support.expert_workers import ExpertModel, expert_major, serving
from wire.channels import open_channel
from wire.clients.expert_worker import ExpertWorkerClient
from wire.codec import decode_answer, encode_request
from wire.errors import InternalError, StaleEpochError
from wire.frames import DispatchReply, ErrorReply
from wire.placement import Epoch
from wire.services import dispatch_stream


@pytest.fixture
def carefully(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is answered by the short way."""
    monkeypatch.setattr(QuickAnswers, "answer", lambda *_: None)


@pytest.mark.usefixtures("carefully")
def test_an_answer_beyond_the_frame_limit_is_refused(
    model: ExpertModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_MAX_ANSWER_BYTES", 10 * model.config.hidden_size * 4 + 16)
    run_async(_too_large(model))


async def _too_large(model: ExpertModel) -> None:
    async with (
        serving(model.path, expert_major(model.config, 1)) as services,
        open_channel(services["expert-0"].address) as channel,
    ):
        stream = dispatch_stream(channel)()
        combined = request(model, 1, rows=10)
        single = replace(combined, request_id=2, combine=np.zeros(10, np.bool_))
        await stream.write(encode_request(single))
        refused = decode_answer(await stream.read())
        assert isinstance(refused, ErrorReply)
        assert (refused.request_id, refused.code) == (2, "bad_frame")
        await stream.write(encode_request(combined))
        assert isinstance(decode_answer(await stream.read()), DispatchReply)
        stream.cancel()


@pytest.mark.usefixtures("carefully")
@pytest.mark.parametrize("name", ["compute", "blank_reply"])
def test_an_unforeseen_failure_costs_one_batch(
    model: ExpertModel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run_async(_one_batch(model, monkeypatch, name))


async def _one_batch(model: ExpertModel, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("did not see it coming")

    async with (
        serving(model.path, expert_major(model.config, 1)) as services,
        open_channel(services["expert-0"].address) as channel,
    ):
        stream = dispatch_stream(channel)()
        with monkeypatch.context() as patch:
            patch.setattr(answering, name, fail)
            await stream.write(encode_request(request(model, 1)))
            answer = decode_answer(await stream.read())
        assert isinstance(answer, ErrorReply)
        assert answer.code == "internal"
        assert "did not see it coming" in answer.message
        await stream.write(encode_request(request(model, 2)))
        assert isinstance(decode_answer(await stream.read()), DispatchReply)
        assert services["expert-0"].state is WorkerState.READY
        stream.cancel()


def test_what_the_short_way_did_not_foresee_goes_the_careful_way(
    model: ExpertModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(QuickAnswers, "_computed", fail)
    run_async(_still_answered(model))


async def _still_answered(model: ExpertModel) -> None:
    async with (
        serving(model.path, expert_major(model.config, 1)) as services,
        open_channel(services["expert-0"].address) as channel,
    ):
        stream = dispatch_stream(channel)()
        await stream.write(encode_request(request(model, 1)))
        assert isinstance(decode_answer(await stream.read()), DispatchReply)
        stream.cancel()


@pytest.mark.usefixtures("carefully")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_streams_end_when_the_arithmetic_dies(
    model: ExpertModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_async(_dies(model, monkeypatch))


async def _dies(model: ExpertModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> None:
        # Not even an Exception: nothing that a batch could answer.
        raise SystemExit

    monkeypatch.setattr(answering.Answering, "is_small", lambda *_: False)
    async with (
        serving(model.path, expert_major(model.config, 1)) as services,
        open_channel(services["expert-0"].address) as channel,
    ):
        idle = dispatch_stream(channel)()
        await idle.write(encode_request(request(model, 1)))
        assert isinstance(decode_answer(await idle.read()), DispatchReply)
        waiting = dispatch_stream(channel)()
        monkeypatch.setattr(answering, "compute", die)
        await waiting.write(encode_request(request(model, 2)))
        for stream in (waiting, idle):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await asyncio.wait_for(stream.read(), 5)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert services["expert-0"].state is WorkerState.FAILED


@pytest.mark.parametrize("failure", [AssertionError("not compiled with it"), MemoryError()])
def test_an_unforeseen_failure_to_load_fails_the_worker(
    model: ExpertModel, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(_: WorkerConfig) -> None:
        raise failure

    monkeypatch.setattr(service, "open_model", fail)
    run_async(_load_fails(model, type(failure).__name__))


async def _load_fails(model: ExpertModel, text: str) -> None:
    before = set(threading.enumerate())
    worker = WorkerService(WorkerConfig(worker_id="w", model=model.path, experts={}))
    await worker.start()
    with pytest.raises(InternalError, match=text):
        await worker.wait_ready()
    assert worker.state is WorkerState.FAILED
    assert text in worker.describe().error
    await worker.stop()
    assert not [t for t in set(threading.enumerate()) - before if t.name == "experts"]


def test_an_older_terms_load_ends_when_a_newer_one_commands(model: ExpertModel) -> None:
    async def newer(worker: WorkerService, second: int) -> None:
        await worker.evict(Epoch(term=2, counter=1), {second: [5, 6]})

    run_async(_older_load(model, newer))


def test_an_older_terms_load_ends_when_a_newer_one_is_heard(model: ExpertModel) -> None:
    async def newer(worker: WorkerService, second: int) -> None:
        async with ExpertWorkerClient(worker.address) as client:
            assert (await client.describe(term=2)).term == 2

    run_async(_older_load(model, newer))


async def _older_load(
    model: ExpertModel, newer: Callable[[WorkerService, int], Awaitable[None]]
) -> None:
    first, second = model.config.moe_layers[:2]
    reading, go_on = threading.Event(), threading.Event()
    async with serving(model.path, {"w": {}}) as services:
        worker = services["w"]
        served = worker._model
        assert served is not None
        load = served.store._load

        def slow(layer: int, experts: Any) -> Any:
            reading.set()
            go_on.wait(30)
            return load(layer, experts)

        served.store._load = slow
        old = asyncio.create_task(
            worker.load(Epoch(term=1, counter=1), {first: [0, 1], second: [5, 6]})
        )
        await asyncio.to_thread(reading.wait, 30)
        heir = asyncio.create_task(newer(worker, second))
        await asyncio.sleep(0.05)
        go_on.set()
        with pytest.raises(StaleEpochError):
            await old
        await heir
        assert served.store.held() == {}
        assert worker.describe().experts_assigned == 0


def test_frames_of_the_last_placement_are_taken_until_the_new_controller_commands(
    model: ExpertModel,
) -> None:
    run_async(_frames_of_two_terms(model))


async def _frames_of_two_terms(model: ExpertModel) -> None:
    async with (
        serving(model.path, expert_major(model.config, 1)) as services,
        open_channel(services["expert-0"].address) as channel,
        ExpertWorkerClient(services["expert-0"].address) as client,
    ):
        stream = dispatch_stream(channel)()
        frame = request(model, 1, rows=4)
        await client.describe(term=frame.epoch.term + 1)
        await stream.write(encode_request(frame))
        assert isinstance(decode_answer(await stream.read()), DispatchReply)
        await client.load(Epoch(term=frame.epoch.term + 1, counter=1), {})
        await stream.write(encode_request(frame))
        refused = decode_answer(await stream.read())
        assert isinstance(refused, ErrorReply)
        assert refused.code == "stale_epoch"
        stream.cancel()
