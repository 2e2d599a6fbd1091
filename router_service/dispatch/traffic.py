"""Messages to one worker and their answers, whatever connection they go by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from torch import Tensor

from router_service.dispatch.breaker import Fault
from router_service.dispatch.call import Call
from router_service.dispatch.canaries import Canary
from router_service.dispatch.fitness import Requirements
from router_service.dispatch.hedge_budget import HedgeBudget
from router_service.dispatch.latency_window import LatencyWindow
from router_service.dispatch.link_stats import LinkStats
from router_service.dispatch.open_calls import OpenCalls
from router_service.dispatch.standing import Standing
from router_service.dispatch_options import DispatchOptions
from wire.carriers.carrier import Carrier
from wire.codec import decode_answer
from wire.envelope import Message
from wire.errors import (
    BadFrameError,
    DeadlineExceededError,
    ErrorCode,
    OrreryError,
    UnavailableError,
    error_for,
)
from wire.frames import ErrorReply

_log = logging.getLogger(__name__)


class Traffic:
    """Every message sent ends as its call says, at the deadline at the latest.

    What the worker does wrong counts against its standing. One that is late has others asked for
    the same rows.

    carrier: of the connection that stands, or stood last.
    """

    def __init__(
        self,
        standing: Standing,
        latencies: LatencyWindow,
        stats: LinkStats,
        requirements: Requirements,
        options: DispatchOptions,
        worsened: Callable[[], None],
        doubt: asyncio.Event,
    ) -> None:
        """
        Args:
            worsened: called when the standing has become worse.
            doubt: set when the worker had better be asked how it is.
        """
        self.carrier: Carrier | None = None
        self.stats = stats
        self._standing = standing
        self._latencies = latencies
        self._requirements = requirements
        self._deadline_s = options.deadline_s
        self._worsened = worsened
        self._doubt = doubt
        self._hedges = HedgeBudget(options.hedge_fraction)
        self._patience = latencies.hedges if options.hedge_fraction else latencies.limits
        self._next_id = 1
        self._loop = asyncio.get_running_loop()
        self._calls = OpenCalls(self._loop, self._overdue)
        self._ended: Callable[[], None] | None = None

    @property
    def outstanding(self) -> int:
        """Expert-token pairs on their way, those included that others have answered since."""
        return self._calls.pairs

    def __len__(self) -> int:
        """Messages without an answer."""
        return len(self._calls)

    def next_request_id(self) -> int:
        number = self._next_id
        self._next_id += 1
        return number

    def send(self, request_id: int, message: Message, call: Call) -> None:
        """Hands a message over; the worker must be usable, or be probed."""
        calls = self._calls
        call.size = size = (calls.pairs + call.pairs).bit_length()
        calls.add(request_id, call, self._patience[size])
        self.stats.sent(len(message))
        if self.carrier is not None:
            self.carrier.put(message)

    def try_canary(self, canary: Canary) -> asyncio.Future[tuple[Tensor, float]]:
        """The answer's rows and the seconds that it took; an `OrreryError` if there is none."""
        answered: asyncio.Future[tuple[Tensor, float]] = self._loop.create_future()

        def replied(rows: Tensor) -> bool:
            if not answered.done():
                answered.set_result((rows, time.perf_counter() - call.sent_at))
            return True

        def failed(error: OrreryError) -> bool:
            if not answered.done():
                answered.set_exception(error)
            return False

        call = Call(
            layer=canary.index,
            rows=len(canary.x),
            pairs=len(canary.x),
            replied=replied,
            failed=failed,
            others=lambda won: False,
        )
        request_id = self.next_request_id()
        self.send(request_id, canary.message(request_id, self._standing.term), call)
        return answered

    def take(self, message: Message) -> None:
        """Has the call end that the message answers.

        Raises:
            BadFrameError: it is no answer at all.
        """
        answer = decode_answer(message)
        call = self._calls.end(answer.request_id)
        if call is None:
            if answer.request_id == 0:
                raise BadFrameError(f"the worker could not read a frame: {answer}")
            self.stats.discarded()
            return
        seconds = time.perf_counter() - call.sent_at
        self.stats.received(len(message), seconds)
        if isinstance(answer, ErrorReply):
            self._refused(call, error_for(answer.code, answer.message), answer.expert)
        elif (fault := self._requirements.fault(answer.rows, call.rows)) is not None:
            self._refused(call, fault)
        else:
            if not call.late:
                self._standing.breaker.answered()
            if not call.replied(answer.rows):
                self.stats.discarded()
            if self._latencies.add(call.size, seconds):
                self._slow(call.size)
        if self._ended is not None:
            self.when_ended(self._ended)

    def fail_all(self, error: OrreryError, fault: Fault) -> None:
        """Waits for no answer any more."""
        for request_id in self._calls.ids:
            call = self._calls.end(request_id)
            if call is not None:
                self.stats.failed(str(ErrorCode.UNAVAILABLE))
                self._fail(call, UnavailableError(str(error)), fault)
        if self._ended is not None:
            self.when_ended(self._ended)

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Has `callback` called as soon as no message waits for its answer."""
        self._ended = callback
        if not self._calls:
            self._calls.stop()
            callback()

    def stop(self) -> None:
        self._calls.stop()

    def _slow(self, size: int) -> None:
        typical = self._latencies.typical(size) or 0.0
        if self._standing.breaker.slow(f"its answers take {1e3 * typical:.1f} ms"):
            self._worsened()

    def _refused(
        self,
        call: Call,
        error: OrreryError,
        expert: int | None = None,
        fault: Fault = Fault.ERROR,
    ) -> None:
        try:
            self.stats.failed(str(error.code))
            self._standing.refused(call.layer, error, expert)
            self._worsened()
        finally:
            self._fail(call, error, fault)

    def _overdue(self, request_id: int, call: Call, now: float) -> None:
        last, limit = call.sent_at + self._deadline_s, self._latencies.limits[call.size]
        if now >= last:
            self._give_up(request_id, call)
        elif now < call.sent_at + limit:
            self._hedge(call)
            call.due = call.sent_at + limit
        else:
            if not call.late:
                self._note_late(call)
            asked = call.others(_nothing)
            if asked:
                self.stats.failed_over(Fault.LATE)
            call.due = last if asked else min(now + limit, last)

    def _note_late(self, call: Call) -> None:
        call.late = True
        self.stats.late()
        if self._standing.breaker.late():
            self._worsened()
        else:
            self._doubt.set()

    def _give_up(self, request_id: int, call: Call) -> None:
        self._calls.end(request_id)
        error = DeadlineExceededError(f"no answer in {self._deadline_s} s")
        self._refused(call, error, fault=Fault.LATE)
        if self._ended is not None:
            self.when_ended(self._ended)

    def _hedge(self, call: Call) -> None:
        if self._hedges.take(self.stats.messages):
            if call.others(self.stats.hedge_won):
                self.stats.hedge_sent()
            else:
                self._hedges.give_back()

    def _fail(self, call: Call, error: OrreryError, fault: Fault) -> None:
        if call.failed(error):
            self.stats.failed_over(fault)


def _nothing() -> None:
    """A second owner that answers first has only done its duty."""
