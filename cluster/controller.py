"""The controller's hands: carries out what `cluster.reconcile` asks for and tells it what happened.

Each member is watched by a task of its own, so that one that hangs delays no other's check.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from cluster.errors import StartError
from cluster.fleet import Fleet, Member, Phase, Report, Role, epoch_of
from cluster.reconcile import (
    Action,
    Died,
    Event,
    Kill,
    Launch,
    Launched,
    Missed,
    Publish,
    Rules,
    Seen,
    Tick,
    advance,
)
from monitoring.metrics import ControllerMetrics
from wire.errors import OrreryError, UnavailableError
from wire.placement import Placement

_log = logging.getLogger(__name__)
_ASKED = (Phase.LOADING, Phase.READY, Phase.DRAINING)


class Actors(Protocol):
    """Starts and ends the processes of members."""

    async def launch(self, member: Member) -> Launched:
        """Starts the member, or finds the one that a former controller started.

        Raises:
            StartError: it did not come up.
        """
        ...

    async def kill(self, member_id: str) -> None:
        """Ends it; one that is gone already is no error."""
        ...

    async def alive(self, member_id: str) -> bool:
        """False when it is known to be gone."""
        ...


class Link(Protocol):
    """Talks to members; see `cluster.probe.GrpcLink`."""

    async def describe(self, member: Member, timeout_s: float) -> Report: ...

    async def publish(self, router: Member, placement: Placement, timeout_s: float) -> Report: ...

    async def close(self) -> None: ...


class Controller:
    """Keeps a fleet as it should be, until cancelled."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        rules: Rules,
        actors: Actors,
        link: Link,
        metrics: ControllerMetrics,
        interval_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._rules = rules
        self._actors = actors
        self._link = link
        self._metrics = metrics
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._locks = {member_id: asyncio.Lock() for member_id in fleet.members}
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def fleet(self) -> Fleet:
        """As of now; a value, so any thread may look at it."""
        return self._fleet

    async def run(self) -> None:
        """Works until cancelled. What it started goes on running then: see `stop_members`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for member_id in self._fleet.members:
                    tasks.create_task(self._watch(member_id))
                while True:
                    self._apply(Tick())
                    await asyncio.sleep(self._interval_s)
        finally:
            self._tasks = None
            await self._link.close()

    async def stop_members(self) -> None:
        """Ends every member, routers first, so that none of them sees its experts vanish."""
        for role in (Role.ROUTER, Role.EXPERT):
            members = self._fleet.of(role)
            await asyncio.gather(*(self._actors.kill(m.member_id) for m in members))

    def _apply(self, event: Event) -> None:
        before = self._fleet
        self._fleet, actions = advance(before, event, self._clock(), self._rules)
        self._note(before, self._fleet)
        for action in actions:
            if self._tasks is not None:
                self._tasks.create_task(self._perform(action))

    async def _perform(self, action: Action) -> None:
        if isinstance(action, Launch):
            await self._launch(action.member)
        elif isinstance(action, Kill):
            async with self._locks[action.member_id]:
                await self._actors.kill(action.member_id)
            self._apply(Tick())
        else:
            await self._publish(action)

    async def _launch(self, member: Member) -> None:
        async with self._locks[member.member_id]:
            try:
                launched = await self._actors.launch(member)
            except StartError as error:
                self._apply(Died(member_id=member.member_id, error=str(error)))
            else:
                self._apply(launched)

    async def _publish(self, action: Publish) -> None:
        router = action.router
        async with self._locks[router.member_id]:
            known = epoch_of(self._fleet.members[router.member_id])
            outdated = action.placement is not self._fleet.placement
            if outdated or known == action.placement.epoch or not self._same(router):
                return
            try:
                report = await self._link.publish(router, action.placement, self._timeout_s)
            except OrreryError as error:
                # The next health check sees an old epoch and asks for this again.
                _log.warning("%s did not take the placement: %s", router.member_id, error)
                return
        if self._same(router):
            self._apply(Seen(member_id=router.member_id, report=report))

    async def _watch(self, member_id: str) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            member = self._fleet.members[member_id]
            if member.phase in _ASKED:
                event = await self._check(member)
                if self._same(member):
                    self._apply(event)

    async def _check(self, member: Member) -> Event:
        try:
            report = await self._link.describe(member, self._timeout_s)
        except UnavailableError as error:
            if await self._actors.alive(member.member_id):
                return Missed(member_id=member.member_id, error=str(error))
            return Died(member_id=member.member_id, error="its process is gone")
        except OrreryError as error:
            return Missed(member_id=member.member_id, error=f"{error.code}: {error}")
        return Seen(member_id=member.member_id, report=report)

    def _same(self, member: Member) -> bool:
        """Whether the member is still the process that it was when `member` was looked up."""
        now = self._fleet.members[member.member_id]
        return now.restarts == member.restarts and now.address == member.address

    def _note(self, before: Fleet, after: Fleet) -> None:
        if before is after:
            return
        for member_id, member in after.members.items():
            old = before.members[member_id]
            if member.restarts > old.restarts:
                self._metrics.restarts.labels(role=str(member.role)).inc()
                _log.warning("%s is started again: %s", member_id, member.error)
            elif member.phase is not old.phase:
                _log.info("%s is %s", member_id, member.phase)
        for role, gauge in (
            (Role.EXPERT, self._metrics.workers),
            (Role.ROUTER, self._metrics.routers),
        ):
            for phase in Phase:
                gauge.labels(state=str(phase)).set(sum(m.phase is phase for m in after.of(role)))
        epoch = after.placement.epoch
        self._metrics.epoch.labels(part="term").set(epoch.term)
        self._metrics.epoch.labels(part="counter").set(epoch.counter)
