"""Asking a worker how it is, and trying whether its answers are right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from torch import Tensor

from router_service.dispatch.breaker import Fault
from router_service.dispatch.canaries import Canaries, Canary, Verdict
from router_service.dispatch.latency_window import LatencyWindow, is_slow
from router_service.dispatch.standing import Standing
from router_service.dispatch_options import DispatchOptions
from wire.clients.expert_worker import ExpertWorkerClient
from wire.errors import OrreryError

_CANARIES_TIMED = 3

Send = Callable[[Canary], "asyncio.Future[tuple[Tensor, float]]"]
"""Sends a canary; gives the answer's rows and how long it took, or an `OrreryError`."""


class Told(Protocol):
    """Who hears what comes of it."""

    def changed(self) -> None:
        """The worker's standing may have changed."""

    def probing(self) -> None:
        """The worker is about to be probed."""

    def judged(self, verdict: Verdict) -> None:
        """A canary was answered."""

    def unmasked(self, reason: str) -> None:
        """The worker's answers are wrong."""


class Inquiry:
    """Belongs to one connection.

    A worker is probed before its answers are believed for the first time, and each time that its
    breaker has opened: it must say that it is fit, and answer a canary rightly and, if it was
    slow or late, no slower than others do. In between it gets a canary now and then.
    """

    def __init__(
        self,
        client: ExpertWorkerClient,
        standing: Standing,
        latencies: LatencyWindow,
        peers: Callable[[], Iterable[LatencyWindow]],
        canaries: Canaries,
        options: DispatchOptions,
        send: Send,
        told: Told,
    ) -> None:
        self._client = client
        self._standing = standing
        self._latencies = latencies
        self._peers = peers
        self._canaries = canaries
        self._options = options
        self._send = send
        self._told = told

    async def run(self, doubt: asyncio.Event) -> None:
        """Probes now, then whenever there is doubt; runs until it is cancelled.

        Raises:
            OrreryError: the worker does not say how it is.
        """
        await self._probe()
        if not self._standing.preferred:
            doubt.set()
        idle = 0
        while True:
            if not await self._doubted(doubt):
                if await self._routine() is Verdict.LATE:
                    doubt.set()
                continue
            doubt.clear()
            strikes = self._standing.breaker.strikes
            await asyncio.sleep(self._options.backoff(max(idle, strikes)))
            description = await self._client.describe(timeout_s=self._options.describe_s)
            self._standing.describe(description)
            self._told.changed()
            if self._standing.fit:
                await self._probe()
            idle += 1
            if not self._standing.preferred or self._standing.lacking:
                doubt.set()
            else:
                idle = 0

    async def _doubted(self, doubt: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(self._options.canary_s or None):
                await doubt.wait()
        except TimeoutError:
            return False
        return True

    async def _probe(self) -> None:
        breaker = self._standing.breaker
        if not breaker.probe():
            return
        self._told.probing()
        timed = breaker.fault in (Fault.LATE, Fault.SLOW)
        seconds: list[float] = []
        canary = await self._canaries.next(self._standing.held)
        while canary is not None and len(seconds) < (_CANARIES_TIMED if timed else 1):
            verdict = await self._try(canary)
            if verdict is not Verdict.RIGHT:
                breaker.missed(f"the answer to a canary was {verdict}")
                self._told.changed()
                return
            seconds.append(self._latencies.canary_s or 0.0)
        if timed and seconds and self._slow(min(seconds)):
            breaker.missed(f"canaries took {1e3 * min(seconds):.1f} ms")
        else:
            breaker.passed()
        self._told.changed()

    async def _routine(self) -> Verdict | None:
        if not self._standing.preferred:
            return None
        canary = await self._canaries.next(self._standing.held)
        return None if canary is None else await self._try(canary)

    async def _try(self, canary: Canary) -> Verdict:
        try:
            async with asyncio.timeout(self._options.describe_s):
                rows, seconds = await self._send(canary)
        except TimeoutError:
            verdict = Verdict.LATE
        except OrreryError:
            verdict = Verdict.REFUSED
        else:
            self._latencies.canary_s = seconds
            verdict = self._canaries.judge(canary, rows)
        self._told.judged(verdict)
        if verdict is Verdict.WRONG:
            self._told.unmasked(f"its answer to a canary of {canary} is wrong")
        return verdict

    def _slow(self, seconds: float) -> bool:
        others = [peer.canary_s for peer in self._peers() if peer is not self._latencies]
        return is_slow(seconds, others, self._options)
