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
        self._writes: set[asyncio.Task[None]] = set()
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
        # Shielded: gRPC ends the whole stream when a write on it is cancelled.
        written = self._start(pb.GenerateRequest(submit=submit))
        try:
            await asyncio.shield(written)
        except asyncio.CancelledError:
            self._give_up(stream)
            raise
        return stream

    async def abort(self, request_id: str) -> None:
        """Asks the router to end a request; its iterator still ends with a finish reason.

        Does nothing for a request that has ended or a stream that is lost.
        """
        if request_id in self._outputs and self._lost is None:
            message = pb.GenerateRequest(abort=pb.Abort(request_id=request_id))
            await asyncio.shield(self._start(message))

    async def close(self) -> None:
        """Closes the stream, which aborts what still runs on it."""
        self._lose(UnavailableError("the stream to the router was closed"))
        self._call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, *self._writes, return_exceptions=True)

    def _start(self, message: pb.GenerateRequest) -> asyncio.Task[None]:
        """A write that goes on whatever becomes of its caller."""
        write = asyncio.get_running_loop().create_task(self._write(message))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)
        return write

    def _give_up(self, stream: RequestStream) -> None:
        """Forgets a request whose submitter has left, and has the router end it."""
        if self._outputs.get(stream.request_id) is stream:
            del self._outputs[stream.request_id]
            if self._lost is None:
                self._start(pb.GenerateRequest(abort=pb.Abort(request_id=stream.request_id)))

    async def _write(self, message: pb.GenerateRequest) -> None:
        # gRPC takes one write at a time on a stream.
        async with self._writing:
            if self._lost is not None:
                return
            try:
                await self._call.write(message)
            except grpc.aio.AioRpcError as failure:
                self._lose(error_of(failure))
            except asyncio.InvalidStateError:
                self._lose(UnavailableError("the stream to the router has ended"))
            except asyncio.CancelledError:
                # gRPC's way to say that the call was cancelled under the write.
                self._lose(UnavailableError("the stream to the router was cancelled"))

    async def _read(self) -> None:
        try:
            while (step := await self._call.read()) is not END_OF_STREAM:
                if not isinstance(step, pb.StepOutput):
                    # gRPC logs what it cannot decode and reads on with None.
                    self._lose(UnavailableError("the router sent a message that cannot be read"))
                    return
                for output in step.outputs:
                    self._deliver(output)
            self._lose(UnavailableError("the router ended the stream"))
        except grpc.aio.AioRpcError as failure:
            self._lose(error_of(failure))
        finally:
            # However the reading has ended, nobody may wait for more of it.
            self._lose(UnavailableError("the stream to the router has broken"))
            self._call.cancel()

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
