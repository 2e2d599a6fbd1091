"""What came by one carrier of one stream, and the answers to it."""

from __future__ import annotations

import time
from collections.abc import Callable

from experts_service.admission import Admission
from experts_service.in_flight import InFlight
from experts_service.intake import Intake
from experts_service.pool import Task
from monitoring.metrics import WorkerMetrics
from wire.codec import encode_error
from wire.envelope import Message, unwrap
from wire.errors import BadFrameError, OrreryError
from wire.frames import ErrorReply
from wire.header import peek_request_id

MAX_IN_FLIGHT = 256


class Exchange:
    """Has each message answered exactly once: computed, or refused with a typed error."""

    def __init__(
        self, admission: Admission, intake: Intake, in_flight: InFlight, metrics: WorkerMetrics
    ) -> None:
        """`in_flight` counts the requests of the whole worker."""
        self._admission = admission
        self._intake = intake
        self._all = in_flight
        self._mine = InFlight()
        self._metrics = metrics

    @property
    def full(self) -> bool:
        """Whether the carrier had better not read on: that slows down a router that sends more
        than is computed, or does not read its answers."""
        return self._mine.count >= MAX_IN_FLIGHT

    def accept(self, message: Message, answer: Callable[[Message], None]) -> None:
        """`answer` is called with an encoded answer, now or later; `written` has to follow."""
        self._all.add()
        self._mine.add()
        quick = self._intake.at_once(message)
        if quick is not None:
            answer(quick)
            return
        try:
            request = self._admission.admit(message)
        except OrreryError as error:
            self._metrics.bad_frames.labels(code=str(error.code)).inc()
            answer(_refusal(message, error))
        else:
            self._intake.put(Task(request, time.perf_counter(), answer))

    async def not_full(self) -> None:
        await self._mine.below(MAX_IN_FLIGHT)

    async def nothing_left(self) -> None:
        """Returns once every answer is on its way."""
        await self._mine.below(1)

    def written(self) -> None:
        """An answer is on its way."""
        self._all.done()
        self._mine.done()

    def close(self) -> None:
        """What a lost carrier leaves behind must not keep the worker from draining."""
        self._all.done(self._mine.count)


def _refusal(message: Message, error: OrreryError) -> bytes:
    try:
        request_id = peek_request_id(unwrap(message))
    except BadFrameError:
        request_id = 0
    return encode_error(ErrorReply(request_id=request_id, code=str(error.code), message=str(error)))
