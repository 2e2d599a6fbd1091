"""One router's dispatch stream, as the worker sees it."""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from experts_service.admission import Admission
from experts_service.exchange import Exchange
from experts_service.in_flight import InFlight
from experts_service.intake import Intake
from monitoring.metrics import WorkerMetrics
from wire.carriers.agreement import wants_local
from wire.carriers.carrier import CarrierChoice, CarrierError
from wire.carriers.framed_socket import FramedSocket
from wire.carriers.local_offer import LocalOffer
from wire.carriers.outbox import Outbox
from wire.envelope import Message
from wire.services import Context

_log = logging.getLogger(__name__)
_ENTRY_S = 5.0


class StreamHandler:
    """Serves what comes in the stream and, where the router asks for it, by a local socket.

    An answer goes back the way that its request came. A frame that is refused gets a typed
    error, and the stream goes on.
    """

    def __init__(
        self,
        admission: Admission,
        intake: Intake,
        in_flight: InFlight,
        metrics: WorkerMetrics,
        carrier: CarrierChoice = "auto",
    ) -> None:
        """`carrier`: with "inline" no local socket is offered."""
        self._parts = (admission, intake, in_flight, metrics)
        self._intake = intake
        self._carrier = carrier

    async def run(self, frames: AsyncIterator[bytes], context: Context) -> None:
        """Serves the stream until the router closes it or its connection ends."""
        exchange = Exchange(*self._parts)
        # Where the router is gone, the answer has nobody to go to.
        answers = Outbox(context.write, exchange.written, (grpc.aio.BaseError, CancelledError))
        with self._intake.stream():
            async with self._beside(context):
                try:
                    async for message in frames:
                        exchange.accept(message, answers.put)
                        if exchange.full:
                            await exchange.not_full()
                    await exchange.nothing_left()
                finally:
                    answers.close()
                    exchange.close()

    @asynccontextmanager
    async def _beside(self, context: Context) -> AsyncIterator[None]:
        """A local socket for as long as the stream lives, if it is asked for and can be had."""
        offer = None
        if self._carrier != "inline" and wants_local(context.invocation_metadata() or ()):
            try:
                offer = LocalOffer()
            except CarrierError as error:
                _log.warning("a router gets no local socket: %s", error)
        if offer is None:
            # The router need not wait any longer for an offer.
            await context.send_initial_metadata(())
            yield
            return
        serving = asyncio.get_running_loop().create_task(self._serve_local(offer))
        try:
            await context.send_initial_metadata(offer.metadata)
            yield
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            offer.close()

    async def _serve_local(self, offer: LocalOffer) -> None:
        try:
            connection = await offer.accept(_ENTRY_S)
        except CarrierError as error:
            _log.info("a router goes on without a local socket: %s", error)
            return
        exchange = Exchange(*self._parts)
        ended = asyncio.Event()

        def take(message: Message) -> None:
            exchange.accept(message, local.put)
            if exchange.full:
                local.pause_reading()

        def written() -> None:
            exchange.written()
            if not exchange.full:
                local.resume_reading()

        local = FramedSocket(connection, take, lambda _: ended.set(), written)
        try:
            await ended.wait()
        finally:
            local.close()
            exchange.close()
