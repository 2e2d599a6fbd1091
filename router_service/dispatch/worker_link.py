"""The long-lived stream from this router to one worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.metrics import RouterMetrics
from router_service.dispatch.breaker import Breaker, Fault
from router_service.dispatch.canaries import Canaries, Verdict
from router_service.dispatch.connection import Connection
from router_service.dispatch.fitness import Requirements
from router_service.dispatch.inquiry import Inquiry
from router_service.dispatch.latency_window import LatencyWindow
from router_service.dispatch.link_stats import LinkStats
from router_service.dispatch.standing import Standing
from router_service.dispatch.traffic import Traffic
from router_service.dispatch_options import DispatchOptions
from wire.channels import open_channel
from wire.clients.expert_worker import ExpertWorkerClient
from wire.errors import InternalError, OrreryError, UnavailableError
from wire.placement import WorkerAddress

_log = logging.getLogger(__name__)


class WorkerLink:
    """Reaches a worker, keeps it reached, and has doubts about it cleared up.

    A worker is usable while its stream stands and its last description and answers give no
    reason against it. What it does wrong opens its breaker; it is asked how it is after a pause
    that grows with each time, so that parked rows do not run in circles.
    """

    def __init__(
        self,
        address: WorkerAddress,
        router_id: str,
        requirements: Requirements,
        options: DispatchOptions,
        metrics: RouterMetrics,
        changed: Callable[[], None],
        peers: Callable[[], Iterable[LatencyWindow]],
        canaries: Canaries,
    ) -> None:
        """Starts to connect at once; needs a running loop.

        Args:
            changed: called when `standing` may have changed.
            peers: the latencies of all workers of this router.
            canaries: to try the worker with.
        """
        self.address = address
        self.standing = Standing(address.worker_id, requirements, Breaker(options.open_after))
        self.latencies = LatencyWindow(options, peers)
        self.stats = LinkStats(address.worker_id, metrics)
        self._doubt = asyncio.Event()
        self.traffic = Traffic(
            *(self.standing, self.latencies, self.stats, requirements, options),
            *(self._worsened, self._doubt),
        )
        self._router_id = router_id
        self._options = options
        self._changed = changed
        self._peers = peers
        self._canaries = canaries
        self._failures = 0
        self._fallback = ""
        self._connected = False
        self._loop = asyncio.get_running_loop()
        self._retired = False
        self._task = self._loop.create_task(self._stay_connected())

    @property
    def usable(self) -> bool:
        return self.standing.refusal is None and not self._retired

    @property
    def preferred(self) -> bool:
        """Whether it is usable, and nothing speaks for asking others instead."""
        return self.standing.preferred and not self._retired

    @property
    def outstanding(self) -> int:
        """See `Traffic`."""
        return self.traffic.outstanding

    @property
    def idle(self) -> bool:
        """No connection stands, and no call waits for an answer."""
        return not self._connected and not self.traffic

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Has `callback` called once the link is through with everything."""
        self._task.add_done_callback(lambda _: callback())

    def assign(self, wanted: NDArray[np.bool_], term: int) -> None:
        """What the newest placement says of this worker; see `Standing.assign`."""
        self.standing.assign(wanted, term)
        self._doubt.set()

    def retire(self) -> None:
        """Sends nothing more, and closes once all calls have ended."""
        self._retired = True
        self.traffic.when_ended(self._leave)

    async def close(self) -> None:
        """Ends the stream; calls on their way fail."""
        self._retired = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.traffic.stop()

    def snapshot(self) -> dict[str, Any]:
        breaker = self.standing.breaker
        return {
            "address": self.address.address,
            "node": self.address.node,
            "pid": self.standing.pid,
            "usable": self.usable,
            "refusal": self.standing.refusal,
            "breaker": breaker.state.value,
            "fault": None if breaker.closed else breaker.fault.value,
            "quarantined": breaker.quarantined,
            "outstanding": self.outstanding,
            "carrier": self.traffic.carrier.name if self.traffic.carrier else None,
            "fallback": self._fallback,
            **self.stats.snapshot(),
        }

    # -- the connection

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
            self._doubt.clear()
            description = await client.describe(timeout_s=self._options.describe_s)
            self.standing.describe(description)
            self.changed()
            if not self.standing.fit:
                return
            connection = await Connection.open(
                *(channel, self._router_id, description, self._options),
                *(self.traffic.take, self._lose),
            )
            self.traffic.carrier = connection.carrier
            asking = self._loop.create_task(self._inquire(client, connection))
            try:
                self._failures = 0
                self._connected = True
                self._note_carrier(connection)
                await connection.read(self.traffic.take)
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

    async def _inquire(self, client: ExpertWorkerClient, connection: Connection) -> None:
        inquiry = Inquiry(
            *(client, self.standing, self.latencies, self._peers),
            *(self._canaries, self._options, self.traffic.try_canary, self),
        )
        try:
            await inquiry.run(self._doubt)
        except OrreryError as error:
            connection.end(UnavailableError(f"the worker did not say how it is: {error}"))
        except Exception as error:  # noqa: BLE001
            _log.exception("asking worker %s failed", self.address.worker_id)
            connection.end(InternalError(f"{type(error).__name__}: {error}"))

    def _lose(self, error: OrreryError) -> None:
        self.standing.lost(error)
        self.changed()
        self.traffic.fail_all(error, Fault.LOST)

    # -- what comes of inquiries

    def changed(self) -> None:
        """Tells those who ask workers that the standing may have changed."""
        self.probing()
        try:
            self._changed()
        except Exception:  # noqa: BLE001
            # A listener's mistake must not end the link, nor keep a call from being failed.
            _log.exception("a change of worker %s was not taken", self.address.worker_id)

    def probing(self) -> None:
        # There may be another link to this worker already, which says what holds.
        if not self._retired:
            self.stats.breaker(self.standing.breaker.state)

    def judged(self, verdict: Verdict) -> None:
        self.stats.canary(verdict)

    def unmasked(self, reason: str) -> None:
        """Believes the worker no more until it is connected to anew, and no answer under way."""
        _log.error("worker %s is in quarantine: %s", self.address.worker_id, reason)
        self.standing.breaker.open(Fault.GARBAGE, reason)
        self.changed()
        self.traffic.fail_all(UnavailableError(reason), Fault.GARBAGE)

    def _worsened(self) -> None:
        self._doubt.set()
        self.changed()

    def _leave(self) -> None:
        self._task.cancel()
