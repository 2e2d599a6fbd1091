"""One gateway's Generate stream, as the router sees it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc

from router_service.engine import Engine
from router_service.messages import outputs_to_message, request_from_message
from router_service.outputs import FinishReason, RequestOutput
from router_service.sequence import Sequence
from wire.errors import InternalError, InvalidRequestError, OrreryError
from wire.generated import orrery_pb2 as pb
from wire.services import Context

_log = logging.getLogger(__name__)


class GatewayStream:
    """Takes requests and aborts, writes one message an engine step with what they gave.

    A request that is refused gets its error as its one output, and the stream goes on. When the
    gateway closes its side, what runs is finished; when it goes away, that is aborted.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[str, Sequence] = {}
        self._steps: asyncio.Queue[list[RequestOutput]] = asyncio.Queue()
        self._all_ended = asyncio.Event()

    async def run(self, requests: AsyncIterator[pb.GenerateRequest], context: Context) -> None:
        """Serves the stream to its end.

        Raises:
            InternalError: the outputs cannot be written; what runs is aborted.
        """
        writer = asyncio.create_task(self._write(context), name="generate-writer")
        reader = asyncio.create_task(self._read(requests), name="generate-reader")
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                _log.error("a gateway's stream has broken", exc_info=writer.exception())
                raise InternalError("the outputs of this stream cannot be written")
            await reader
        finally:
            writer.cancel()
            reader.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)
            for seq in list(self._open.values()):
                self._engine.abort(seq)

    async def _read(self, requests: AsyncIterator[pb.GenerateRequest]) -> None:
        """Takes every request, and waits until the last output is written."""
        async for message in requests:
            self._take(message)
        self._note_ended()
        await self._all_ended.wait()
        await self._steps.join()

    def deliver(self, outputs: list[RequestOutput]) -> None:
        """See `OutputSink`."""
        for output in outputs:
            if output.finish_reason is not None:
                self._open.pop(output.request_id, None)
        self._note_ended()
        self._steps.put_nowait(outputs)

    def _note_ended(self) -> None:
        if self._open:
            self._all_ended.clear()
        else:
            self._all_ended.set()

    def _take(self, message: pb.GenerateRequest) -> None:
        if message.WhichOneof("message") == "abort":
            if (seq := self._open.get(message.abort.request_id)) is not None:
                self._engine.abort(seq)
        elif message.WhichOneof("message") == "submit":
            self._submit(message.submit)

    def _submit(self, message: pb.Submit) -> None:
        request_id = message.request_id
        if (seq := self._open.get(request_id)) is not None:
            # Outputs of two requests of one name could not be told apart.
            error = InvalidRequestError(f"request_id {request_id!r} was used twice at a time")
            self._engine.refuse(seq, error)
            return
        try:
            seq = self._engine.submit(request_from_message(message), self)
        except OrreryError as error:
            refusal = RequestOutput(
                request_id=request_id, finish_reason=FinishReason.ERROR, error=error
            )
            self.deliver([refusal])
            return
        if not seq.finished:
            self._open[request_id] = seq
            self._note_ended()

    async def _write(self, context: Context) -> None:
        while True:
            outputs = await self._steps.get()
            try:
                await context.write(outputs_to_message(outputs))
            except grpc.aio.BaseError:
                # The gateway is gone; `run` is about to be cancelled and aborts the rest.
                continue
            finally:
                self._steps.task_done()
