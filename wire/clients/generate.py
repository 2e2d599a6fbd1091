"""Many requests over one Generate stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from wire.errors import InvalidRequestError, OrreryError, UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.services import END_OF_STREAM, generate_stream
from wire.status import error_of


class GenerateStream:
    """Multiplexes requests over one stream to a router.

    Every submitted request's iterator ends in exactly one way: after an output with a finish
    reason, or with `UnavailableError` when the stream is lost before that. A lost stream stays
    lost: open another.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Must be made on a running event loop."""
        self._call = generate_stream(channel)()
        self._outputs: dict[str, RequestStream] = {}
        self._writing = asyncio.Lock()
        self._lost: OrreryError | None = None
        self._reader = asyncio.get_running_loop().create_task(self._read())

    @property
    def lost(self) -> bool:
        return self._lost is not None

    @property
    def open_requests(self) -> int:
        return len(self._outputs)

    async def submit(self, submit: pb.Submit) -> RequestStream:
        """Sends a request and gives its outputs, an engine step each.

        Raises:
            UnavailableError: the stream is lost.
            InvalidRequestError: the request_id is in use on this stream.
        """
        if self._lost is not None:
            raise UnavailableError(str(self._lost))
        if submit.request_id in self._outputs:
            raise InvalidRequestError(f"request_id {submit.request_id!r} is in use")
        stream = RequestStream(submit.request_id)
        self._outputs[submit.request_id] = stream
        await self._write(pb.GenerateRequest(submit=submit))
        return stream

    async def abort(self, request_id: str) -> None:
        """Asks the router to end a request; its iterator still ends with a finish reason.

        Does nothing for a request that has ended or a stream that is lost.
        """
        if request_id in self._outputs and self._lost is None:
            await self._write(pb.GenerateRequest(abort=pb.Abort(request_id=request_id)))

    async def close(self) -> None:
        """Closes the stream, which aborts what still runs on it."""
        self._lose(UnavailableError("the stream to the router was closed"))
        self._call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _write(self, message: pb.GenerateRequest) -> None:
        # gRPC takes one write at a time on a stream.
        async with self._writing:
            try:
                await self._call.write(message)
            except grpc.aio.AioRpcError as failure:
                self._lose(error_of(failure))
            except asyncio.InvalidStateError:
                self._lose(UnavailableError("the stream to the router has ended"))

    async def _read(self) -> None:
        try:
            while (step := await self._call.read()) is not END_OF_STREAM:
                for output in step.outputs:
                    self._deliver(output)
        except grpc.aio.AioRpcError as failure:
            self._lose(error_of(failure))
        else:
            self._lose(UnavailableError("the router ended the stream"))

    def _deliver(self, output: pb.RequestOutput) -> None:
        stream = self._outputs.get(output.request_id)
        if stream is None:
            return
        if output.finish_reason != pb.FINISH_REASON_UNSPECIFIED:
            del self._outputs[output.request_id]
        stream.push(output)

    def _lose(self, error: OrreryError) -> None:
        if self._lost is None:
            self._lost = error
        streams, self._outputs = self._outputs, {}
        for stream in streams.values():
            stream.fail(UnavailableError(f"the stream to the router was lost: {error}"))


class RequestStream(AsyncIterator[pb.RequestOutput]):
    """The outputs of one request; ends after the one with a finish reason."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._queue: asyncio.Queue[pb.RequestOutput | UnavailableError] = asyncio.Queue()
        self._ended = False

    def push(self, output: pb.RequestOutput) -> None:
        self._queue.put_nowait(output)

    def fail(self, error: UnavailableError) -> None:
        self._queue.put_nowait(error)

    async def __anext__(self) -> pb.RequestOutput:
        if self._ended:
            raise StopAsyncIteration
        item = await self._queue.get()
        if isinstance(item, UnavailableError):
            self._ended = True
            raise item
        self._ended = item.finish_reason != pb.FINISH_REASON_UNSPECIFIED
        return item
