"""What the controller looks at again and again besides its members: loads, and leaving nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from cluster.autoscale import Autoscaler
from cluster.contacts import Actors, Link
from cluster.errors import ClusterError
from cluster.fleet import Fleet
from cluster.loads import LoadWindow
from cluster.rules import Pace
from cluster.signals import Ask, Event, Nodes, ScaleAsked, Weighed
from cluster.work_done import what_they_did

_log = logging.getLogger(__name__)


class Lookout:
    """Tells the controller what it sees, until cancelled."""

    def __init__(
        self,
        *,
        actors: Actors,
        link: Link,
        pace: Pace,
        autoscaler: Autoscaler | None,
        clock: Callable[[], float],
        fleet: Callable[[], Fleet],
        tell: Callable[[Event], None],
        ask: Callable[[Ask], Awaitable[None]],
    ) -> None:
        self._actors, self._link, self._pace = actors, link, pace
        self._autoscaler, self._clock = autoscaler, clock
        self._fleet, self._tell, self._ask = fleet, tell, ask
        owners = fleet().owners
        self._window = LoadWindow(
            pace.window_s, list(owners), max((len(ids) for ids in owners.values()), default=0)
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_again(self._pace.weigh_s, self._weigh))
            tasks.create_task(_again(self._pace.nodes_s, self._look_at_nodes))

    async def _look_at_nodes(self) -> None:
        leaving = await self._actors.leaving_nodes()
        if leaving - self._fleet().avoid:
            self._tell(Nodes(leaving=leaving))

    async def _weigh(self) -> None:
        now, with_busy = self._clock(), self._autoscaler is not None
        counters, busy = await what_they_did(
            self._link, self._fleet(), self._pace.timeout_s, with_busy=with_busy
        )
        load = self._window.take(now, counters)
        if load is not None:
            self._tell(Weighed(load=load))
        if self._autoscaler is not None and self._fleet().begun:
            wanted = self._autoscaler.wanted(now, busy, self._fleet().workers)
            if wanted != self._fleet().workers:
                await self._scale(wanted)

    async def _scale(self, wanted: int) -> None:
        try:
            await self._ask(ScaleAsked(workers=wanted, by="autoscaler"))
        except ClusterError as error:
            _log.info("not scaled to %d workers: %s", wanted, error)


async def _again(pause_s: float, look: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        await asyncio.sleep(pause_s)
        await look()
