"""The long-lived stream from this router to one worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.metrics import RouterMetrics
from router_service.dispatch.call import Call
from router_service.dispatch.connection import Connection
from router_service.dispatch.fitness import Requirements
from router_service.dispatch.link_stats import LinkStats
from router_service.dispatch.open_calls import OpenCalls
from router_service.dispatch.options import DispatchOptions
from wire.channels import open_channel
from wire.clients.expert_worker import ExpertWorkerClient
from wire.codec import decode_answer
from wire.envelope import Message
from wire.errors import (
    BadFrameError,
    DeadlineExceededError,
    ErrorCode,
    ExpertNotHeldError,
    InternalError,
    OrreryError,
    UnavailableError,
    error_for,
)
from wire.frames import ErrorReply
from wire.generated import orrery_pb2 as pb
from wire.placement import WorkerAddress

_log = logging.getLogger(__name__)


class WorkerLink:
    """Reaches a worker, keeps it reached, and knows whether it can be used.

    A worker is usable while its stream stands and its last description and answers give no
    reason against it. An error answer makes it unusable until it has been asked again, after a
    pause that grows with each error in a row, so that parked rows do not run in circles.
    """

    def __init__(
        self,
        address: WorkerAddress,
        router_id: str,
        requirements: Requirements,
        options: DispatchOptions,
        metrics: RouterMetrics,
        changed: Callable[[], None],
    ) -> None:
        """Starts to connect at once; needs a running loop.

        changed: called when `usable` or `held` may have changed.
        """
        self.address = address
        shape = (len(requirements.layers), requirements.n_routed_experts)
        self.held: NDArray[np.bool_] = np.zeros(shape, np.bool_)
        self.wanted: NDArray[np.bool_] = np.zeros(shape, np.bool_)
        self.term = 0
        self.stats = LinkStats(address.worker_id, metrics)
        self._router_id = router_id
        self._requirements = requirements
        self._options = options
        self._changed = changed
        self._refusal: str | None = "it was not reached yet"
        self._strikes = 0
        self._failures = 0
        self._next_id = 1
        self._connection: Connection | None = None
        self._fallback = ""
        self._connected = False
        self._ask_again = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._calls = OpenCalls(self._loop, options.deadline_s, self._expire)
        self._retired = False
        self._task = self._loop.create_task(self._stay_connected())

    @property
    def usable(self) -> bool:
        return self._refusal is None and not self._retired

    @property
    def outstanding(self) -> int:
        """Expert-token pairs on their way."""
        return self._calls.pairs

    @property
    def idle(self) -> bool:
        """No connection stands, and no call waits for an answer."""
        return not self._connected and not self._calls

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Has `callback` called once the link is through with everything."""
        self._task.add_done_callback(lambda _: callback())

    def assign(self, wanted: NDArray[np.bool_], term: int) -> None:
        """What the newest placement says of this worker; bool [layers, experts] and its term.

        Experts are loaded before a placement that names them is published, so it is believed
        over what the worker said before; if it is wrong, the worker answers so.
        """
        self.held = self.held | (wanted & ~self.wanted)
        self.wanted = wanted
        self.term = term
        self._ask_again.set()

    def next_request_id(self) -> int:
        number = self._next_id
        self._next_id += 1
        return number

    def send(self, request_id: int, message: Message, call: Call) -> None:
        """Hands a message over; the link must be usable."""
        self._calls.add(request_id, call)
        self.stats.sent(len(message))
        if self._connection is not None:
            self._connection.carrier.put(message)

    def retire(self) -> None:
        """Sends nothing more, and closes once all calls have ended."""
        self._retired = True
        self._close_if_idle()

    async def close(self) -> None:
        """Ends the stream; calls on their way fail."""
        self._retired = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._calls.stop()

    def snapshot(self) -> dict[str, Any]:
        return {
            "address": self.address.address,
            "node": self.address.node,
            "usable": self.usable,
            "refusal": self._refusal,
            "outstanding": self.outstanding,
            "carrier": self._connection.carrier.name if self._connection else None,
            "fallback": self._fallback,
            **self.stats.snapshot(),
        }

    async def _stay_connected(self) -> None:
        while not self._retired:
            try:
                await self._connect()
            except OrreryError as error:
                self._lose(error)
            except asyncio.CancelledError:
                self._lose(UnavailableError("the link was closed"))
                raise
            except Exception as error:  # noqa: BLE001
                # Nothing that a worker says may end its link: rows would wait for it for ever.
                _log.exception("the link to worker %s failed", self.address.worker_id)
                self._lose(InternalError(f"{type(error).__name__}: {error}"))
            await asyncio.sleep(self._options.backoff(self._failures))
            self._failures += 1

    async def _connect(self) -> None:
        """One connection, to its end.

        Raises:
            OrreryError: the worker cannot be reached or used, or the stream broke.
        """
        async with open_channel(self.address.address) as channel:
            client = ExpertWorkerClient(self.address.address, channel)
            self._ask_again.clear()
            description = await client.describe(timeout_s=self._options.describe_s)
            if self._requirements.refusal(description, self.term) is not None:
                self._judge(description)
                return
            connection = await Connection.open(
                channel, self._router_id, description, self._options, self._take, self._lose
            )
            self._connection = connection
            asking = self._loop.create_task(self._keep_asking(client, connection))
            try:
                self._failures = 0
                self._connected = True
                self._note_carrier(connection)
                self._judge(description)
                await connection.read(self._take)
            finally:
                self._connected = False
                connection.close()
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    def _note_carrier(self, connection: Connection) -> None:
        self.stats.carried_by(connection.carrier.name)
        if connection.fallback and connection.fallback != self._fallback:
            reason = connection.fallback
            _log.info("worker %s is reached inline: %s", self.address.worker_id, reason)
        self._fallback = connection.fallback

    async def _ask(self, client: ExpertWorkerClient) -> None:
        self._judge(await client.describe(timeout_s=self._options.describe_s))

    def _judge(self, description: pb.WorkerDescription) -> None:
        """Takes over what a worker says of itself, and whether it can be used."""
        refusal = self._requirements.refusal(description, self.term)
        if refusal is not None and refusal != self._refusal:
            _log.warning("worker %s is not used: %s", self.address.worker_id, refusal)
        self._refusal = refusal
        self.held = self._requirements.held(description)
        self._tell()

    async def _keep_asking(self, client: ExpertWorkerClient, connection: Connection) -> None:
        """Asks again while there is doubt about the worker, or while it lacks something."""
        idle = 0
        while True:
            await self._ask_again.wait()
            self._ask_again.clear()
            await asyncio.sleep(self._options.backoff(max(idle, self._strikes)))
            try:
                await self._ask(client)
            except OrreryError as error:
                connection.end(UnavailableError(f"the worker did not say how it is: {error}"))
                return
            except Exception as error:  # noqa: BLE001
                _log.exception("asking worker %s failed", self.address.worker_id)
                connection.end(InternalError(f"{type(error).__name__}: {error}"))
                return
            idle += 1
            if self._refusal is not None or (self.wanted & ~self.held).any():
                self._ask_again.set()
            else:
                idle = 0

    def _take(self, message: Message) -> None:
        answer = decode_answer(message)
        call = self._calls.end(answer.request_id)
        if call is None:
            if answer.request_id == 0:
                raise BadFrameError(f"the worker could not read a frame: {answer}")
            return
        self.stats.received(len(message), time.perf_counter() - call.sent_at)
        if isinstance(answer, ErrorReply):
            self._refused(call, error_for(answer.code, answer.message), answer.expert)
        elif (fault := self._requirements.fault(answer.rows, call.rows)) is not None:
            self._refused(call, fault)
        else:
            self._strikes = 0
            call.replied(answer.rows)
        self._close_if_idle()

    def _refused(self, call: Call, error: OrreryError, expert: int | None = None) -> None:
        try:
            self.stats.failed(str(error.code))
            known = expert is not None and expert < self.held.shape[1]
            if isinstance(error, ExpertNotHeldError) and known:
                self.held[call.layer, expert] = False
            else:
                self._strikes += 1
                self._refusal = f"{error.code}: {error}"
            self._ask_again.set()
            self._tell()
        finally:
            call.failed(error)

    def _expire(self, request_id: int) -> None:
        call = self._calls.end(request_id)
        if call is not None:
            self._refused(call, DeadlineExceededError(f"no answer in {self._options.deadline_s} s"))
            self._close_if_idle()

    def _lose(self, error: OrreryError) -> None:
        if self.usable:
            _log.warning("worker %s is lost: %s", self.address.worker_id, error)
        self._refusal = f"{error.code}: {error}"
        self._tell()
        for request_id in self._calls.ids:
            call = self._calls.end(request_id)
            if call is not None:
                self.stats.failed(str(ErrorCode.UNAVAILABLE))
                call.failed(UnavailableError(str(error)))

    def _tell(self) -> None:
        try:
            self._changed()
        except Exception:  # noqa: BLE001
            # A listener's mistake must not end the link, nor keep a call from being failed.
            _log.exception("a change of worker %s was not taken", self.address.worker_id)

    def _close_if_idle(self) -> None:
        if self._retired and not self._calls:
            self._calls.stop()
            self._task.cancel()
