"""A world in which processes of a fleet die, delay and fail at random, for tests of the mind."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np

from cluster.errors import ClusterError
from cluster.fleet import NO_EPOCH, Fleet, Report, new_fleet
from cluster.holdings import minus, owned, plus
from cluster.permit import permit
from cluster.reconcile import advance
from cluster.rules import Rules
from cluster.saved import resume, save
from cluster.signals import (
    Absent,
    Action,
    Answered,
    Ask,
    Died,
    DrainAsked,
    Drained,
    DrainRouter,
    Event,
    Evicted,
    EvictExperts,
    Failed,
    Kill,
    Launch,
    Launched,
    Loaded,
    LoadExperts,
    Note,
    Ponder,
    Publish,
    RestartAsked,
    ScaleAsked,
    Seen,
    Tick,
    Weighed,
)
from cluster.thought import Question
from wire.placement import Placement

LAYERS, EXPERTS = (1, 2), 6


class World:
    """Processes that hold experts, one router that knows a placement, and commands on their way."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        chance = self.chance
        workers = [f"expert-{n}" for n in range(chance.randint(2, 4))]
        owners = {
            layer: tuple((workers[e % len(workers)],) for e in range(EXPERTS)) for layer in LAYERS
        }
        self.rules = Rules(
            misses=3,
            start_timeout_s=60,
            redundant=chance.choice([0, 0, 2, "twice"]),
            memory_bytes=chance.choice([None, None, 9, 12]),
            loads_bytes=chance.choice([None, 1, 3]),
            drain_s=0.3,
        )
        self.planned = new_fleet(owners, workers, ["router-0"], 1, chance.randint(0, 2))
        self.fleet: Fleet = self.planned
        self.now = 0.0
        self.held: dict[str, dict[int, tuple[int, ...]]] = {}
        self.starting: list[Launch] = []
        self.commands: list[LoadExperts | EvictExperts] = []
        self.outdated: list[LoadExperts | EvictExperts] = []
        self.terms: dict[str, int] = {}
        self.publishes: list[Publish] = []
        self.known: dict[str, Placement] = {}
        self.draining: list[str] = []
        self.questions: list[Question[Any]] = []
        self.notes: list[Note] = []
        self.port = 0

    def do(self, event: Event) -> None:
        before = self.fleet.placement
        self.fleet, actions = advance(self.fleet, event, self.now, self.rules)
        for action in actions:
            self._take(action)
        if self.fleet.placement is not before:
            self._check(self.fleet.placement)

    def _take(self, action: Action) -> None:
        if isinstance(action, Launch):
            self.starting.append(action)
        elif isinstance(action, Kill):
            self.held.pop(action.member_id, None)
            self.terms.pop(action.member_id, None)
            self.starting = [s for s in self.starting if s.member.member_id != action.member_id]
        elif isinstance(action, Publish):
            self.publishes.append(action)
        elif isinstance(action, DrainRouter):
            takers = [m.member_id for m in self.fleet.takers]
            assert takers and action.router.member_id not in takers
            self.draining.append(action.router.member_id)
        elif isinstance(action, Ponder):
            self.questions.append(action.question)
        elif isinstance(action, Note):
            self.notes.append(action)
        else:
            self.commands.append(action)

    def _check(self, placement: Placement) -> None:
        for worker, experts in owned(placement.owners).items():
            # One that has just died is not known to be dead yet.
            if worker in self.held:
                assert not minus(experts, self.held[worker]), f"{worker} does not hold that"

    def start_one(self) -> None:
        if not self.starting:
            return
        member = self.starting.pop(self.chance.randrange(len(self.starting))).member
        name = member.member_id
        self.port += 1
        if name not in self.held:
            if self.fleet.resumed and not self.fleet.begun:
                self.do(Absent(member_id=name))
            self.held[name] = {layer: tuple(e) for layer, e in member.experts.items()}
            self.known.pop(name, None)
        self.do(
            Launched(
                member_id=name,
                address=f"h:{self.port}",
                metrics_address="m",
                node=f"n{self.chance.randint(0, 2)}",
                pid=self.port,
            )
        )

    def publish_one(self) -> None:
        if not self.publishes:
            return
        publish = self.publishes.pop(self.chance.randrange(len(self.publishes)))
        name = publish.router.member_id
        if name not in self.held or publish.placement is not self.fleet.placement:
            return
        self.known[name] = publish.placement
        self.see(name)

    def see(self, name: str) -> None:
        if name not in self.held or name not in self.fleet.members:
            return
        held = None
        router = name.startswith("router")
        if not router and self.fleet.change is None and not self._busy(name):
            held = self.held[name]
        elif not router:
            held = self.held[name] if self.fleet.members[name].phase == "loading" else None
        self.terms[name] = self.fleet.placement.epoch.term
        epoch = self.known[name].epoch if name in self.known else NO_EPOCH
        self.do(
            Seen(
                member_id=name,
                report=Report(state="ready", fingerprint="f", epoch=epoch, held=held),
            )
        )

    def _busy(self, name: str) -> bool:
        return any(c.worker.member_id == name for c in self.commands)

    def command_one(self, *, may_fail: bool) -> None:
        if not self.commands:
            return
        command = self.commands.pop(self.chance.randrange(len(self.commands)))
        name = command.worker.member_id
        now = self.fleet.members.get(name)
        if name not in self.held or now is None or now.restarts != command.worker.restarts:
            return
        if may_fail and self.chance.random() < 0.15:
            self.do(Failed(member_id=name, change=command.change, error="disk"))
            return
        if isinstance(command, LoadExperts):
            self.held[name] = dict(plus(self.held[name], command.experts))  # type: ignore[arg-type]
            if self.rules.memory_bytes is not None:
                size = sum(map(len, self.held[name].values()))
                assert size <= self.rules.memory_bytes, f"{name} holds too much"
            event: Event = Loaded(member_id=name, experts=command.experts, change=command.change)
        else:
            current = self.fleet.change is not None and self.fleet.change.number == command.change
            routers = [r for r in self.known if r in self.held and r in self.fleet.members]
            for router in routers if current else []:
                asked = owned(self.known[router].owners).get(name, {})
                kept = minus(asked, command.experts)
                assert kept == asked, f"evicted although {router} goes by it"
            self.held[name] = dict(minus(self.held[name], command.experts))  # type: ignore[arg-type]
            event = Evicted(member_id=name, experts=command.experts, change=command.change)
        self.do(event)

    def outdated_one(self) -> None:
        """A command of a controller that another has followed comes late, or not at all."""
        if not self.outdated:
            return
        command = self.outdated.pop(self.chance.randrange(len(self.outdated)))
        name = command.worker.member_id
        if name not in self.held or self.terms.get(name, 0) > command.epoch.term:
            return
        change = plus if isinstance(command, LoadExperts) else minus
        self.held[name] = dict(change(self.held[name], command.experts))  # type: ignore[arg-type]

    def die(self) -> None:
        if self.held:
            name = self.chance.choice(sorted(self.held))
            del self.held[name]
            self.terms.pop(name, None)
            self.do(Died(member_id=name, error="gone"))

    def answer_one(self) -> None:
        """The planner answers when it is ready, be it to a question of yesterday."""
        if self.questions:
            question = self.questions.pop(0)
            self.do(Answered(question=question, answer=question.find()))

    def ask(self) -> None:
        chance = self.chance
        names = [name for name in self.fleet.members if name.startswith("expert")]
        routers = [name for name in self.fleet.members if name.startswith("router")]
        event: Ask = chance.choice(
            [
                ScaleAsked(workers=chance.randint(1, 5), by="t"),
                DrainAsked(names=frozenset({chance.choice(names)}), by="t"),
                DrainAsked(names=frozenset({chance.choice(routers)}), by="t"),
                RestartAsked(by="t"),
            ]
        )
        try:
            permit(self.fleet, event, self.rules)
        except ClusterError:
            return
        self.do(event)

    def succeed(self) -> None:
        """Another controller takes over."""
        if not self.fleet.begun:
            return
        term = self.fleet.placement.epoch.term + 1
        placement = dataclasses.replace(
            self.planned.placement, epoch=dataclasses.replace(NO_EPOCH, term=term)
        )
        self.fleet = resume(
            save(self.fleet), dataclasses.replace(self.planned, placement=placement)
        )
        self.outdated += self.commands
        self.commands, self.publishes, self.starting = [], [], []
        self.draining, self.questions = [], []

    def step(self, *, calm: bool) -> None:
        self.now += 0.1
        self.do(Tick())
        for _ in range(3):
            self.start_one()
            self.command_one(may_fail=not calm)
            if calm or self.chance.random() < 0.5:
                self.answer_one()
            self.publish_one()
            if self.draining:
                self.do(Drained(member_id=self.draining.pop()))
            self.outdated_one()
        if calm or self.chance.random() < 0.7:
            for name in list(self.held):
                self.see(name)
        if calm:
            return
        luck = self.chance.random()
        if luck < 0.08:
            self.die()
        elif luck < 0.12:
            self.ask()
        elif luck < 0.14:
            load = [[self.chance.random() ** 3 * 1e5 for _ in range(EXPERTS)] for _ in LAYERS]
            self.do(Weighed(load=np.array(load)))
        elif luck < 0.15:
            self.succeed()
