"""The thread that does a worker's arithmetic."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import torch

from experts_service.grouped import compute
from experts_service.pool import Task, TaskPool
from experts_service.status import WorkerStatus
from experts_service.store import ExpertStore, HeldLayer
from experts_service.token_counts import TokenCounts
from kimi_k2.numerics import Numerics
from monitoring.metrics import WorkerMetrics
from wire.codec import encode_error, encode_reply
from wire.errors import ErrorCode
from wire.frames import DispatchReply, ErrorReply

_log = logging.getLogger(__name__)

Answers = list[tuple[Task, bytes]]


class Runtime:
    """Takes batches from the pool, computes them, hands the answers back.

    One thread, so that the event loop stays free to receive while torch computes, and so that
    whatever arrives meanwhile becomes the next batch.
    """

    def __init__(
        self,
        pool: TaskPool,
        store: ExpertStore,
        numerics: Numerics,
        status: WorkerStatus,
        counts: TokenCounts,
        metrics: WorkerMetrics,
        deliver: Callable[[Answers], None],
        died: Callable[[], None],
    ) -> None:
        """`deliver` and `died` are called in the runtime's thread.

        `died`: the thread ended without being asked to.
        """
        self._pool = pool
        self._store = store
        self._numerics = numerics
        self._status = status
        self._counts = counts
        self._metrics = metrics
        self._deliver = deliver
        self._died = died
        self._thread = threading.Thread(target=self._run, name="experts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Computes what is in the pool and ends the thread; blocks until then."""
        self._pool.close()
        self._thread.join()

    def _run(self) -> None:
        asked_to_end = False
        try:
            with torch.inference_mode():
                while (tasks := self._pool.take()) is not None:
                    self._deliver(self._answers(tasks))
            asked_to_end = True
        finally:
            if not asked_to_end:
                self._died()

    def _answers(self, tasks: list[Task]) -> Answers:
        started = time.perf_counter()
        layer = tasks[0].request.layer
        held = self._store.layer(layer)
        answers: Answers = []
        ready: list[Task] = []
        for task in tasks:
            self._metrics.queue_seconds.observe(started - task.arrived)
            missing = _first_missing(task, held)
            if missing is None:
                ready.append(task)
            else:
                answers.append((task, self._not_held(task, layer, missing)))
        if ready and held is not None:
            answers += self._computed(ready, held)
            self._metrics.ffn_seconds.observe(time.perf_counter() - started)
        return answers

    def _computed(self, tasks: list[Task], held: HeldLayer) -> Answers:
        requests = [task.request for task in tasks]
        layer = requests[0].layer
        try:
            outputs = compute(requests, held, self._numerics)
        except RuntimeError as error:
            # torch's own errors, such as a device out of memory: this batch fails, and the
            # routers ask another worker.
            _log.exception("a feed-forward of layer %d failed", layer)
            text = f"the feed-forward failed: {error}"
            return [(task, _error(task, ErrorCode.INTERNAL, text)) for task in tasks]
        self._metrics.batch_rows.observe(sum(len(request.counts) for request in requests))
        for request in requests:
            self._counts.add(layer, request.experts)
            self._metrics.expert_tokens.labels(layer=str(layer)).inc(len(request.experts))
        return [
            (
                task,
                encode_reply(
                    DispatchReply(
                        request_id=task.request.request_id,
                        epoch=self._status.epoch,
                        layer=layer,
                        rows=rows,
                    )
                ),
            )
            for task, rows in zip(tasks, outputs, strict=True)
        ]

    def _not_held(self, task: Task, layer: int, expert: int) -> bytes:
        self._metrics.bad_frames.labels(code=str(ErrorCode.EXPERT_NOT_HELD)).inc()
        text = f"expert {expert} of layer {layer} is not held here"
        return _error(task, ErrorCode.EXPERT_NOT_HELD, text, expert)


def _first_missing(task: Task, held: HeldLayer | None) -> int | None:
    """The first expert of the request that is not held."""
    experts = task.request.experts
    if held is None:
        return int(experts[0])
    unknown = experts >= len(held.slots)
    if unknown.any():
        return int(experts[unknown][0])
    absent = held.slots[experts] < 0
    return int(experts[absent][0]) if absent.any() else None


def _error(task: Task, code: ErrorCode, text: str, expert: int | None = None) -> bytes:
    return encode_error(
        ErrorReply(request_id=task.request.request_id, code=str(code), message=text, expert=expert)
    )
