"""A Dispatch stream to a worker, with the carrier that was agreed on for its messages."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import grpc

from router_service.dispatch_options import DispatchOptions
from wire.carriers.agreement import enter, local_wish
from wire.carriers.carrier import INLINE, LOCAL, Carrier, CarrierError
from wire.carriers.framed_socket import FramedSocket
from wire.carriers.outbox import Outbox
from wire.envelope import Message
from wire.errors import OrreryError, UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.services import END_OF_STREAM, dispatch_stream
from wire.status import error_of


class Connection:
    """Ends as a whole: with the stream, with the carrier beside it, or when told to.

    carrier: what messages go out by.
    fallback: why that is not a local socket, where one would have been taken.
    """

    def __init__(self, call: Any, carrier: Carrier, fallback: str) -> None:
        self.carrier = carrier
        self.fallback = fallback
        self._call = call
        self._why: OrreryError | None = None

    @classmethod
    async def open(
        cls,
        channel: grpc.aio.Channel,
        router_id: str,
        worker: pb.WorkerDescription,
        options: DispatchOptions,
        take: Callable[[Message], None],
        lost: Callable[[OrreryError], None],
    ) -> Connection:
        """Opens the stream, and a local socket beside it where one may and can be had.

        Args:
            take: gets the answers that do not come in the stream; may raise `OrreryError`.
            lost: told at once when the socket is lost, before `read` ends.

        Raises:
            UnavailableError: only a local socket will do, and there is none.
        """
        asks = options.carrier != INLINE and LOCAL in worker.carriers
        metadata = (("orrery-router", router_id), *(local_wish() if asks else ()))
        call: Any = dispatch_stream(channel)(metadata=metadata)
        # Whoever reads sees the same end of the stream, and says why.
        broken = (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError)
        opened = cls(call, Outbox(call.write, lambda: None, broken), "")

        def lose(error: OrreryError) -> None:
            lost(error)
            opened.end(error)

        complete = False
        try:
            if options.carrier != INLINE:
                try:
                    connection = await _local(call, asks, options.describe_s)
                    opened.carrier = FramedSocket(connection, take, lose)
                except CarrierError as error:
                    if options.carrier == LOCAL:
                        raise UnavailableError(f"no local socket: {error}") from error
                    opened.fallback = str(error)
            complete = True
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure) from failure
        finally:
            if not complete:
                opened.close()
        return opened

    async def read(self, take: Callable[[Message], None]) -> None:
        """Has every message of the stream taken, until the connection ends.

        Raises:
            OrreryError: why it has ended.
        """
        try:
            while (message := await self._call.read()) is not END_OF_STREAM:
                take(message)
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure) from failure
        except asyncio.CancelledError:
            # Raised both when the reader is cancelled and when the stream is.
            task = asyncio.current_task()
            if self._why is None or (task is not None and task.cancelling()):
                raise
            raise self._why from None
        raise UnavailableError("the worker ended the stream")

    def end(self, why: OrreryError) -> None:
        """Has `read` raise `why`."""
        self._why = why
        self.close()

    def close(self) -> None:
        """Sends and reads nothing more."""
        self.carrier.close()
        self._call.cancel()


async def _local(call: Any, asked: bool, timeout_s: float) -> socket.socket:
    if not asked:
        raise CarrierError("the worker offers no local socket")
    try:
        async with asyncio.timeout(timeout_s):
            answer = await call.initial_metadata()
    except TimeoutError:
        raise CarrierError(f"no word of a local socket in {timeout_s} s") from None
    return await enter(answer, timeout_s)
