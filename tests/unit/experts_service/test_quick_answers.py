"""The short way to an answer: the careful way's bytes, or nothing."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from experts_service.admission import Admission
from experts_service.answering import Answering
from experts_service.pool import Task
from experts_service.quick_answers import QuickAnswers
from experts_service.status import WorkerState, WorkerStatus
from experts_service.store import ExpertStore
from experts_service.token_counts import TokenCounts
from kimi_k2.checkpoint import Checkpoint
from kimi_k2.held_experts import held_experts
from kimi_k2.numerics import prove_numerics
from monitoring.metrics import WorkerMetrics
from tests.support.checkpoints import write_random_checkpoint
from wire.codec import encode_request
from wire.envelope import Message
from wire.errors import OrreryError
from wire.frames import DispatchRequest
from wire.header import BODY_START
from wire.placement import Epoch

HELD = (0, 2, 3, 4, 7, 9, 14)
HIDDEN, TOP_K = 64, 4


class Worker:
    """Both ways of a worker that holds some experts of layer 1."""

    def __init__(self, path: Path) -> None:
        checkpoint = Checkpoint(path)
        config, numerics = checkpoint.config, prove_numerics(checkpoint.config)
        if not numerics.segments:
            pytest.skip("this machine's library computes in a way that no kernel repeats")
        self.store = ExpertStore(
            config.n_routed_experts,
            lambda layer, experts: held_experts(checkpoint, layer, experts, numerics),
        )
        self.store.add(1, HELD)
        self.status = WorkerStatus()
        self.status.state = WorkerState.READY
        self.status.command(Epoch(term=2, counter=7))
        self.counts = TokenCounts(config.moe_layers, config.n_routed_experts)
        metrics = WorkerMetrics(CollectorRegistry())
        self.answering = Answering(self.store, numerics, self.status, self.counts, metrics)
        self.admission = Admission(config, numerics.dtype, self.status)
        self.quick = QuickAnswers(config, numerics, self.status, self.store, self.answering)

    def carefully(self, message: Message) -> bytes:
        with torch.inference_mode():
            task = Task(self.admission.admit(message), time.perf_counter(), lambda _: None)
            ((_, answer),) = self.answering.answers([task])
        return bytes(answer)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("quick") / "model", with_tokenizer=False)


@pytest.fixture
def worker(path: Path) -> Worker:
    return Worker(path)


def request(rows: int, *, whole: bool, seed: int = 0) -> DispatchRequest:
    rng = np.random.default_rng(seed)
    counts = np.full(rows, TOP_K) if whole else rng.integers(1, TOP_K + 1, rows)
    experts = [np.sort(rng.choice(HELD, count, replace=False)) for count in counts]
    return DispatchRequest(
        request_id=1 + seed,
        epoch=Epoch(term=2, counter=1),
        layer=1,
        x=torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(seed)),
        counts=counts.astype(np.uint8),
        combine=np.full(rows, whole),
        experts=np.concatenate(experts).astype(np.uint16),
        weights=rng.random(int(counts.sum()), np.float32),
    )


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 16, 17, 33, 200])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_both_ways_give_the_same_bytes(
    worker: Worker, rows: int, whole: bool, kind: Callable[[bytes], Message]
) -> None:
    message = kind(encode_request(request(rows, whole=whole, seed=rows)))
    answer = worker.quick.answer(message)
    assert answer is not None
    before = worker.counts.total
    assert bytes(answer) == worker.carefully(message)
    assert worker.counts.total == 2 * before > 0


def test_experts_that_come_and_go(worker: Worker) -> None:
    """What is held is looked at for each message, and is never that of another time."""
    first = encode_request(request(9, whole=True, seed=1))
    wanted = worker.quick.answer(first)
    worker.store.add(1, [1, 5])
    assert worker.quick.answer(first) == wanted
    worker.store.remove(1, HELD[:5])
    assert worker.quick.answer(first) is None
    last = weakref.ref(worker.store.layer(1))
    worker.store.remove(1, range(16))
    assert worker.quick.answer(first) is None
    assert last() is None, "evicted weights are still in memory"


def no_request() -> DispatchRequest:
    return request(6, whole=True)


ODD = {
    "another layer": replace(no_request(), layer=2),
    "no layer with experts": replace(no_request(), layer=0),
    "an older term": replace(no_request(), epoch=Epoch(term=1, counter=9)),
    "another dtype": replace(no_request(), x=torch.zeros(6, HIDDEN, dtype=torch.bfloat16)),
    "another width": replace(no_request(), x=torch.zeros(6, HIDDEN // 2)),
    "mixed flags": replace(no_request(), combine=np.array([True] * 5 + [False])),
    "an expert that is not held": replace(no_request(), experts=np.full(24, 1, np.uint16)),
    "an unknown expert": replace(no_request(), experts=np.full(24, 999, np.uint16)),
    "too few experts to combine": replace(request(6, whole=False), combine=np.ones(6, np.bool_)),
    "a weight that is not finite": replace(
        no_request(), weights=np.array([0.5] * 23 + [np.inf], np.float32)
    ),
    "no weight at all": replace(no_request(), weights=np.full(24, np.nan, np.float32)),
    "descending experts": replace(
        no_request(), experts=np.tile(np.array([7, 4, 3, 2], np.uint16), 6)
    ),
    "one expert twice": replace(
        no_request(), experts=np.tile(np.array([2, 2, 3, 4], np.uint16), 6)
    ),
    "no expert": replace(no_request(), counts=np.array([0, 8, 4, 4, 4, 4], np.uint8)),
    "more pairs than are there": replace(no_request(), counts=np.full(6, 5, np.uint8)),
    "fewer pairs than are there": replace(no_request(), counts=np.full(6, 3, np.uint8)),
}


@pytest.mark.parametrize("name", ODD)
def test_of_anything_odd_nothing_is_said(worker: Worker, name: str) -> None:
    assert worker.quick.answer(encode_request(ODD[name])) is None
    assert worker.counts.total == 0


@pytest.mark.parametrize("state", [s for s in WorkerState if s is not WorkerState.READY])
def test_a_worker_that_is_not_ready(worker: Worker, state: WorkerState) -> None:
    worker.status.state = state
    assert worker.quick.answer(encode_request(no_request())) is None


@pytest.mark.parametrize("seed", range(40))
def test_broken_bytes_end_as_the_careful_way_says(worker: Worker, seed: int) -> None:
    """Wherever the careful way refuses, nothing is said; wherever not, both say the same."""
    rng = np.random.default_rng(seed)
    message = bytearray(encode_request(request(5, whole=bool(seed % 2), seed=seed)))
    for _ in range(int(rng.integers(1, 4))):
        # Not among the rows, where any bytes are fine.
        message[int(rng.integers(0, BODY_START + 64))] = int(rng.integers(0, 256))
    cut = message[: int(rng.integers(1, len(message) + 1))] if seed % 5 == 0 else message
    answer = worker.quick.answer(cut)
    if answer is not None:
        assert bytes(answer) == worker.carefully(cut)
        return
    try:
        worker.carefully(cut)
    except OrreryError:
        return


def test_a_large_request_is_left_to_the_other_thread(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experts_service.quick_answers.SMALL_BYTES", 10_000)
    assert worker.quick.answer(encode_request(request(200, whole=True))) is None
