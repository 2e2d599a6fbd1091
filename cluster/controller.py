"""The controller's hands: carries out what `cluster.reconcile` asks for and tells it what happened.

Each member is watched by a task of its own, so that one that hangs delays no other's check.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from cluster.autoscale import Autoscaler
from cluster.contacts import Actors, Link
from cluster.errors import ClusterError, StartError
from cluster.events import Chronicle
from cluster.fleet import Fleet, Member, Role, epoch_of
from cluster.gauges import Gauges
from cluster.life import UP
from cluster.lookout import Lookout
from cluster.permit import permit
from cluster.reconcile import advance
from cluster.rules import Pace, Rules
from cluster.saved import lasting
from cluster.signals import (
    Absent,
    Action,
    Answered,
    Ask,
    Died,
    Drained,
    DrainRouter,
    Event,
    Evicted,
    EvictExperts,
    Failed,
    Kill,
    Launch,
    Loaded,
    LoadExperts,
    Missed,
    Note,
    Overtaken,
    Ponder,
    Publish,
    Seen,
    Tick,
)
from cluster.thought import Question
from wire.errors import OrreryError, UnavailableError

_log = logging.getLogger(__name__)


class Controller:
    """Keeps a fleet as it should be, until cancelled."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        rules: Rules,
        actors: Actors,
        link: Link,
        gauges: Gauges,
        pace: Pace,
        chronicle: Chronicle,
        autoscaler: Autoscaler | None = None,
        keep: Callable[[Fleet], None] = lambda fleet: None,
        leads: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keep`: called, in a thread, with the fleet whenever what must outlive this controller
        has changed, before a process is started or ended that follows from it.
        `leads`: whether no other one has followed; asked, in a thread, before a process is started
        or ended, since no process can refuse that by the term."""
        self._fleet = fleet
        self._rules = rules
        self._actors = actors
        self._link = link
        self._gauges = gauges
        self._pace = pace
        self._chronicle = chronicle
        self._keep = keep
        self._leads = leads
        self._clock = clock
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._planner, self._journal = asyncio.Lock(), asyncio.Lock()
        self._unkept = False
        self._lookout = Lookout(
            actors=actors,
            link=link,
            pace=pace,
            autoscaler=autoscaler,
            clock=clock,
            fleet=lambda: self._fleet,
            tell=self._apply,
            ask=self.ask,
        )
        self._watched: set[str] = set()
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
                tasks.create_task(self._lookout.run())
                self._watch_new()
                while True:
                    self._apply(Tick())
                    await asyncio.sleep(self._pace.interval_s)
        finally:
            self._tasks = None
            await self._link.close()

    async def ask(self, event: Ask) -> None:
        """Makes something the fleet's aim; returns when that is kept, before it is reached.

        Raises:
            ClusterError: it cannot be done; says why.
        """
        if self._fleet.superseded:
            raise ClusterError("another controller is at work")
        await asyncio.to_thread(permit, self._fleet, event, self._rules)
        self._apply(event)
        self._apply(Tick())
        await self._save()

    async def stop_members(self) -> None:
        """Ends every member, routers first, so that none of them sees its experts vanish."""
        for role in (Role.ROUTER, Role.EXPERT):
            members = self._fleet.of(role)
            await asyncio.gather(*(self._actors.kill(m.member_id) for m in members))

    def _apply(self, event: Event) -> None:
        before = self._fleet
        self._fleet, actions = advance(before, event, self._clock(), self._rules)
        if lasting(before) != lasting(self._fleet) and not self._fleet.superseded:
            self._unkept = True
            if self._tasks is not None:
                self._tasks.create_task(self._save())
        self._gauges.show(before, self._fleet)
        self._watch_new()
        for action in actions:
            if isinstance(action, Note):
                self._gauges.count(action)
                self._chronicle.add(action)
                _log.info("%s %s: %s", action.kind, action.subject, action.text)
            elif self._tasks is not None:
                self._tasks.create_task(self._perform(action))

    def _watch_new(self) -> None:
        if self._tasks is None:
            return
        for name in self._fleet.members.keys() - self._watched:
            self._watched.add(name)
            self._tasks.create_task(self._watch(name))

    async def _save(self) -> None:
        """Returns when what must outlive this controller is kept."""
        async with self._journal:
            if self._unkept:
                self._unkept = False
                await asyncio.to_thread(self._keep, self._fleet)

    async def _perform(self, action: Action) -> None:
        if isinstance(action, Launch | Kill):
            await self._save()
            if not await asyncio.to_thread(self._leads):
                self._apply(Overtaken())
                return
        if isinstance(action, Launch):
            await self._launch(action)
        elif isinstance(action, Kill):
            async with self._locks[action.member_id]:
                await self._actors.kill(action.member_id)
            self._apply(Tick())
        elif isinstance(action, DrainRouter):
            await self._drain(action.router)
        elif isinstance(action, Ponder):
            await self._ponder(action.question)
        elif isinstance(action, Publish):
            await self._publish(action)
        elif isinstance(action, LoadExperts | EvictExperts):
            await self._command(action)

    async def _launch(self, action: Launch) -> None:
        member = action.member
        async with self._locks[member.member_id]:
            taking_over = self._fleet.resumed and not self._fleet.begun
            if taking_over and not await self._actors.present(member.member_id):
                self._apply(Absent(member_id=member.member_id))
            try:
                launched = await self._actors.launch(member, action.avoid, action.polite)
            except StartError as error:
                self._apply(Died(member_id=member.member_id, error=str(error)))
            else:
                self._apply(launched)

    async def _ponder(self, question: Question[Any]) -> None:
        """In a thread, since it may take a second; one at a time, and only what is still asked."""
        async with self._planner:
            thought = self._fleet.thought
            if thought is None or thought.question is not question:
                return
            answer = await asyncio.to_thread(question.find)
        self._apply(Answered(question=question, answer=answer))

    async def _drain(self, router: Member) -> None:
        try:
            await self._link.drain(router, self._rules.router_drain_s)
        except OrreryError as error:
            _log.info("%s did not finish what it had begun: %s", router.member_id, error)
        if self._same(router):
            self._apply(Drained(member_id=router.member_id))

    async def _publish(self, action: Publish) -> None:
        router = action.router
        async with self._locks[router.member_id]:
            known = epoch_of(self._fleet.members[router.member_id])
            outdated = action.placement is not self._fleet.placement
            if outdated or known == action.placement.epoch or not self._same(router):
                return
            try:
                report = await self._link.publish(router, action.placement, self._pace.timeout_s)
            except OrreryError as error:
                # The next health check sees an old epoch and asks for this again.
                _log.warning("%s did not take the placement: %s", router.member_id, error)
                return
        if self._same(router):
            self._apply(Seen(member_id=router.member_id, report=report))

    async def _command(self, action: LoadExperts | EvictExperts) -> None:
        name, number = action.worker.member_id, action.change
        event: Event
        try:
            if isinstance(action, LoadExperts):
                await self._link.load(action.worker, action.epoch, action.experts)
                event = Loaded(member_id=name, experts=action.experts, change=number)
            else:
                await self._link.evict(action.worker, action.epoch, action.experts)
                event = Evicted(member_id=name, experts=action.experts, change=number)
        except OrreryError as error:
            event = Failed(member_id=name, change=number, error=f"{error.code}: {error}")
        if self._same(action.worker):
            self._apply(event)

    async def _watch(self, name: str) -> None:
        while (member := self._fleet.members.get(name)) is not None:
            if member.phase in UP:
                change, started = self._fleet.change, self._fleet.changes
                event = await self._check(member)
                if isinstance(event, Seen) and (change or started != self._fleet.changes):
                    # It may have been said before what has been loaded since.
                    event = dataclasses.replace(event, report=_of_itself(event, member))
                if self._same(member):
                    self._apply(event)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.interval_s):
                    await self._link.broken(member)
        self._watched.discard(name)

    async def _check(self, member: Member) -> Event:
        term = self._fleet.placement.epoch.term
        try:
            report = await self._link.describe(member, term, self._pace.timeout_s)
        except UnavailableError as error:
            if await self._actors.alive(member.member_id):
                return Missed(member_id=member.member_id, error=str(error))
            return Died(member_id=member.member_id, error="its process is gone")
        except OrreryError as error:
            return Missed(member_id=member.member_id, error=f"{error.code}: {error}")
        return Seen(member_id=member.member_id, report=report)

    def _same(self, member: Member) -> bool:
        """Whether the member is still the process that it was when `member` was looked up."""
        now = self._fleet.members.get(member.member_id)
        return now is not None and now.restarts == member.restarts and now.address == member.address


def _of_itself(event: Seen, member: Member) -> Any:
    """The report, without what it says of experts unless nobody knows that yet."""
    if member.phase is not member.phase.READY:
        return event.report
    return dataclasses.replace(event.report, held=None)
