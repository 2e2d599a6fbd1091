"""One router's dispatch stream, as the worker sees it."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import AsyncIterator

import grpc

from experts_service.admission import Admission
from experts_service.in_flight import InFlight
from experts_service.intake import Intake
from experts_service.pool import Task
from monitoring.metrics import WorkerMetrics
from wire.codec import encode_error
from wire.envelope import unwrap
from wire.errors import BadFrameError, OrreryError
from wire.frames import ErrorReply
from wire.header import peek_request_id
from wire.outbox import Outbox
from wire.services import Context

_MAX_IN_FLIGHT = 256


class StreamHandler:
    """Takes frames in and writes the answers, each exactly once.

    A frame that is refused gets a typed error on the stream, which then goes on.
    """

    def __init__(
        self, admission: Admission, intake: Intake, in_flight: InFlight, metrics: WorkerMetrics
    ) -> None:
        """`in_flight` counts the requests of all streams."""
        self._admission = admission
        self._intake = intake
        self._all = in_flight
        self._mine = InFlight()
        self._metrics = metrics

    async def run(self, frames: AsyncIterator[bytes], context: Context) -> None:
        """Serves the stream until the router closes it or its connection ends."""
        # Where the router is gone, the answer has nobody to go to.
        answers = Outbox(context.write, self._written, (grpc.aio.BaseError, CancelledError))
        try:
            async for message in frames:
                self._accept(message, answers)
                # Not reading on is what slows a router down that sends more than is computed.
                await self._mine.below(_MAX_IN_FLIGHT)
            await self._mine.below(1)
        finally:
            answers.close()
            # What a lost stream leaves behind must not keep the worker from draining.
            self._all.done(self._mine.count)

    def _accept(self, message: bytes, answers: Outbox) -> None:
        self._all.add()
        self._mine.add()
        try:
            request = self._admission.admit(message)
        except OrreryError as error:
            self._metrics.bad_frames.labels(code=str(error.code)).inc()
            answers.put(_refusal(message, error))
        else:
            arrived = time.perf_counter()
            self._intake.put(Task(request=request, arrived=arrived, answer=answers.put))

    def _written(self) -> None:
        self._all.done()
        self._mine.done()


def _refusal(message: bytes, error: OrreryError) -> bytes:
    try:
        request_id = peek_request_id(unwrap(message))
    except BadFrameError:
        request_id = 0
    return encode_error(ErrorReply(request_id=request_id, code=str(error.code), message=str(error)))
