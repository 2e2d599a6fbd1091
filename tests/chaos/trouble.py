"""Expert workers that misbehave on command; the product knows nothing of them.

A controller of the suite starts such workers where another would start plain ones. Until they are
told otherwise they do what any worker does.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from cluster import actor as controller_module
from cluster.members import actor as members_module
from experts_service import service as service_module
from experts_service.actor import ExpertWorker
from experts_service.answering import Answering, Answers
from experts_service.config import WorkerConfig
from experts_service.pool import Task
from wire.codec import decode_answer, encode_reply
from wire.envelope import Message
from wire.frames import ErrorReply

WELL, SLOW, GARBAGE, MALFORMED, CLOSED = "", "slow", "garbage", "malformed", "closed port"
SLOWNESS = 10
_SCALE = 0.5
_BORN = b"orrery-chaos-born"


def born_with(kind: str) -> None:
    """Workers that start from now on do so in this kind of trouble."""
    _internal_kv_put(_BORN, kind.encode(), overwrite=True)


class TroubledAnswering(Answering):
    """Answers of the kind that it was last told to give."""

    kind = WELL

    def answers(self, tasks: list[Task]) -> Answers:
        begun = time.perf_counter()
        answers = super().answers(tasks)
        if self.kind == SLOW:
            time.sleep((SLOWNESS - 1) * (time.perf_counter() - begun))
        elif self.kind == MALFORMED:
            return [(task, b"\x00garbage" * 16) for task, _ in answers]
        elif self.kind == GARBAGE:
            return [(task, _spoilt(message)) for task, message in answers]
        return answers


class TroubledWorker(ExpertWorker):
    """As `ExpertWorker`, with a way to be told."""

    def __init__(self, config: WorkerConfig) -> None:
        super().__init__(config)
        self._answering: list[TroubledAnswering] = []
        service_module.Answering = self._new_answering  # type: ignore[assignment,misc]

    def trouble(self, kind: str) -> None:
        """Returns once the worker misbehaves."""
        if kind == CLOSED:
            service: Any = self._running()
            self._loop.run(service._server.stop(None))
        for answering in self._answering:
            answering.kind = kind

    def _new_answering(self, *arguments: Any) -> TroubledAnswering:
        answering = TroubledAnswering(*arguments)
        answering.kind = (_internal_kv_get(_BORN) or b"").decode()
        self._answering.append(answering)
        return answering


class ChaosControllerHost(controller_module.ControllerHost):
    """As `ControllerHost`, with troubled workers."""

    def __init__(self, *arguments: Any) -> None:
        members_module.ExpertWorkerActor = ray.remote(max_concurrency=8)(TroubledWorker)
        super().__init__(*arguments)


ChaosController: Any = ray.remote(ChaosControllerHost)


def _spoilt(message: Message) -> Message:
    """Finite numbers of the right shape, and none of them right."""
    answer = decode_answer(message)
    if isinstance(answer, ErrorReply):
        return message
    return encode_reply(replace(answer, rows=answer.rows * _SCALE + _SCALE))
