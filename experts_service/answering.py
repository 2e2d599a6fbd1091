"""From requests of one layer to their encoded answers."""

from __future__ import annotations

import logging
import time

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from experts_service.grouped import FeedForward, compute
from experts_service.pool import Task
from experts_service.status import WorkerStatus
from experts_service.store import ExpertStore, HeldLayer
from experts_service.token_counts import TokenCounts
from kimi_k2.expert_ffn import expert_ffn
from kimi_k2.numerics import Numerics
from monitoring.deferred import DeferredTimes
from monitoring.metrics import WorkerMetrics
from wire.codec import blank_reply, encode_error, encode_reply
from wire.envelope import Message
from wire.errors import ErrorCode
from wire.frames import DispatchReply, DispatchRequest, ErrorReply

_log = logging.getLogger(__name__)

SMALL_BYTES = 32 << 20
"""Weights and rows that an event loop may stand still for."""

Answers = list[tuple[Task, Message]]


class Answering:
    """Computes batches; has no state of its own, so that any thread may, several at a time."""

    def __init__(
        self,
        store: ExpertStore,
        numerics: Numerics,
        status: WorkerStatus,
        counts: TokenCounts,
        metrics: WorkerMetrics,
        feed_forward: FeedForward = expert_ffn,
    ) -> None:
        self._store = store
        self._numerics = numerics
        self._status = status
        self._counts = counts
        self._metrics = metrics
        self._feed_forward = feed_forward
        self._tokens = {
            layer: metrics.expert_tokens.labels(layer=str(layer)) for layer in counts.layers
        }
        self._published = dict.fromkeys(counts.layers, 0)
        deferred = metrics.deferred
        self._queue_seconds = DeferredTimes(deferred, metrics.queue_seconds)
        self._ffn_seconds = DeferredTimes(deferred, metrics.ffn_seconds)
        self._batch_rows = DeferredTimes(deferred, metrics.batch_rows)
        deferred.add(self, self._publish_tokens)

    def is_small(self, request: DispatchRequest) -> bool:
        """Whether the request takes no more than a few milliseconds, during which it is fine
        for an event loop to stand still."""
        if self._numerics.device.type != "cpu":
            return False
        held = self._store.layer(request.layer)
        if held is None:
            return True
        pair = held.weights.nbytes // len(held.experts) + request.x.nbytes // len(request.counts)
        return len(request.experts) * pair <= SMALL_BYTES

    def answers(self, tasks: list[Task]) -> Answers:
        """An answer or an error for each task; all of one layer. Needs inference mode."""
        try:
            return self._answers(tasks)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, such as a device out of memory: this batch fails, the routers ask
            # another worker, and the next batch has its own chance.
            _log.exception("a batch of layer %d failed", tasks[0].request.layer)
            return [(task, _failed(task, error)) for task in tasks]

    def _answers(self, tasks: list[Task]) -> Answers:
        started = time.perf_counter()
        layer = tasks[0].request.layer
        held = self._store.layer(layer)
        answers: Answers = []
        ready: list[Task] = []
        for task in tasks:
            self._queue_seconds.observe(started - task.arrived)
            missing = _first_missing(task, held)
            if missing is None:
                ready.append(task)
            else:
                answers.append((task, self._not_held(task, layer, missing)))
        if ready and held is not None:
            answers += self._computed(ready, held)
            self._ffn_seconds.observe(time.perf_counter() - started)
        return answers

    def _computed(self, tasks: list[Task], held: HeldLayer) -> Answers:
        self._batch_rows.observe(sum(len(task.request.counts) for task in tasks))
        for task in tasks:
            self._counts.add(task.request.layer, task.request.experts)
        if len(tasks) == 1:
            return [(tasks[0], self._computed_in_place(tasks[0].request, held))]
        requests = [task.request for task in tasks]
        outputs = compute(requests, held, self._numerics, self._feed_forward)
        return [
            (task, self._encoded(task, rows)) for task, rows in zip(tasks, outputs, strict=True)
        ]

    def _computed_in_place(self, request: DispatchRequest, held: HeldLayer) -> Message:
        """The answer to one request, computed where it lies in the message."""
        message, out = blank_reply(
            request.request_id,
            self._status.epoch,
            request.layer,
            request.answer_rows,
            request.x.shape[1],
            request.x.dtype,
        )
        compute([request], held, self._numerics, self._feed_forward, out)
        return message

    def _encoded(self, task: Task, rows: Tensor) -> Message:
        request = task.request
        reply = DispatchReply(
            request_id=request.request_id,
            epoch=self._status.epoch,
            layer=request.layer,
            rows=rows,
        )
        try:
            return encode_reply(reply)
        except Exception as error:  # noqa: BLE001
            _log.exception("an answer of layer %d cannot be sent", request.layer)
            return _failed(task, error)

    def note(self, layer: int, experts: NDArray[np.uint16], rows: int, seconds: float) -> None:
        """Counts a request that was computed at once, elsewhere; `experts` of all its pairs."""
        self._queue_seconds.observe(0.0)
        self._ffn_seconds.observe(seconds)
        self._batch_rows.observe(rows)
        self._counts.add(layer, experts)

    def _publish_tokens(self) -> None:
        for layer, total in self._counts.totals().items():
            self._tokens[layer].inc(total - self._published[layer])
            self._published[layer] = total

    def _not_held(self, task: Task, layer: int, expert: int) -> bytes:
        self._metrics.bad_frames.labels(code=str(ErrorCode.EXPERT_NOT_HELD)).inc()
        text = f"expert {expert} of layer {layer} is not held here"
        return _error(task, ErrorCode.EXPERT_NOT_HELD, text, expert)


def _first_missing(task: Task, held: HeldLayer | None) -> int | None:
    """The first expert of the request that is not held."""
    experts = task.request.experts
    if held is None:
        return int(experts[0])
    asked: list[int] = experts.tolist()
    if held.ids.issuperset(asked):
        return None
    return next(expert for expert in asked if expert not in held.ids)


def _failed(task: Task, error: Exception) -> bytes:
    text = f"the feed-forward failed: {type(error).__name__}: {error}"
    return _error(task, ErrorCode.INTERNAL, text)


def _error(task: Task, code: ErrorCode, text: str, expert: int | None = None) -> bytes:
    return encode_error(
        ErrorReply(request_id=task.request.request_id, code=str(code), message=text, expert=expert)
    )
