"""Carries a change on: what its next steps call for, and what follows from their outcome."""

from __future__ import annotations

import dataclasses

from cluster.change import Change, in_pieces
from cluster.fleet import Fleet, Role, epoch_of, placement_of
from cluster.holdings import Experts, Owners, count, minus, owned, plus
from cluster.life import UP
from cluster.planner import Drain, Evict, Load, Publish, Step
from cluster.rules import Rules
from cluster.signals import (
    Action,
    EvictExperts,
    Failed,
    Loaded,
    LoadExperts,
    Note,
    StepEvent,
)

_PAUSE_S = 1.0
# What nobody waits for; the loads of others are made as fast as they can be.
_PATIENT = ("balance", "scale")


def begin(
    fleet: Fleet,
    reason: str,
    cause: str,
    steps: tuple[Step, ...],
    owners: Owners,
    now: float,
    rules: Rules,
    actions: list[Action],
) -> Fleet:
    """The fleet with a new change under way."""
    steps = (*_room_for(fleet, steps, rules), *steps)
    copies = sum(count(step.experts) for step in steps if isinstance(step, Load))
    number = fleet.changes + 1
    change = Change(
        number=number,
        reason=reason,
        cause=cause,
        steps=in_pieces(steps, rules.loads if reason in _PATIENT else None),
        owners=owners,
        since=now,
        copies=copies,
    )
    workers = len(change.workers)
    actions.append(
        Note(
            kind="change_begun",
            text=f"{reason}: {cause}; {copies} copies to load, {workers} workers take part",
            facts={"change": number, "reason": reason, "copies": copies},
        )
    )
    return dataclasses.replace(fleet, change=change, changes=number)


def pursue(fleet: Fleet, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    """As far as it goes without waiting for anybody."""
    while (change := fleet.change) is not None:
        if not change.steps:
            return _finish(fleet, change, now, actions)
        first = change.steps[0]
        if isinstance(first, Publish):
            fleet = dataclasses.replace(
                fleet,
                owners=first.owners,
                change=dataclasses.replace(change, steps=change.steps[1:], quiet_since=None),
            )
            fleet = dataclasses.replace(fleet, placement=placement_of(fleet))
            continue
        if isinstance(first, Drain):
            change = _listen(fleet, change, now)
            fleet = dataclasses.replace(fleet, change=change)
            if change.quiet_since is None or now - change.quiet_since < rules.drain_s:
                return fleet
            rest = dataclasses.replace(change, steps=change.steps[len(change.wave) :])
            fleet = dataclasses.replace(fleet, change=rest)
            continue
        return _ask(fleet, change, rules, actions)
    return fleet


def take_step(fleet: Fleet, event: StepEvent, now: float, actions: list[Action]) -> Fleet:
    """The fleet after a worker's answer to a command, be it of this change or of a former one."""
    member = fleet.members.get(event.member_id)
    if member is None or member.phase not in UP:
        return fleet
    if isinstance(event, Failed):
        fleet = fleet.put(dataclasses.replace(member, doubted=True))
        if fleet.change is not None and fleet.change.number == event.change:
            return abandon(fleet, f"{event.member_id}: {event.error}", now, actions)
        return fleet
    if isinstance(event, Loaded):
        held = plus(member.experts, event.experts)
    else:
        held = minus(member.experts, event.experts)
    fleet = fleet.put(dataclasses.replace(member, experts=held))
    change = fleet.change
    if change is not None and change.number == event.change and change.steps:
        fleet = dataclasses.replace(fleet, change=change.without(event.member_id, event.experts))
    return fleet


def abandon(fleet: Fleet, why: str, now: float, actions: list[Action]) -> Fleet:
    """Lets the change go; what it came to is seen to by the next plan."""
    change = fleet.change
    if change is None:
        return fleet
    actions.append(
        Note(
            kind="change_abandoned",
            text=f"{change.reason}: {why}",
            seconds=now - change.since,
            facts={"change": change.number, "reason": change.reason},
        )
    )
    return dataclasses.replace(
        fleet, change=None, tried={}, idle_until=now + _PAUSE_S, restless=True
    )


def _room_for(fleet: Fleet, steps: tuple[Step, ...], rules: Rules) -> tuple[Step, ...]:
    """What has to go first where memory is short: copies that a change which was abandoned has left
    behind, which the planner does not know of."""
    if rules.memory_bytes is None:
        return ()
    most = rules.memory_bytes // rules.expert_bytes
    share = owned(fleet.owners)
    drains: list[Step] = []
    evicts: list[Step] = []
    for worker in sorted({step.worker_id for step in steps if isinstance(step, Load)}):
        held = fleet.members[worker].experts
        coming: Experts = {}
        for step in steps:
            if isinstance(step, Load) and step.worker_id == worker:
                coming = plus(coming, step.experts)
        loose = minus(minus(held, share.get(worker, {})), coming)
        if loose and count(plus(held, coming)) > most:
            going = {layer: tuple(ids) for layer, ids in loose.items()}
            drains.append(Drain(worker_id=worker, experts=going))
            evicts.append(Evict(worker_id=worker, experts=going))
    return (*drains, *evicts)


def _finish(fleet: Fleet, change: Change, now: float, actions: list[Action]) -> Fleet:
    actions.append(
        Note(
            kind="change_done",
            text=f"{change.reason}: {change.cause}",
            seconds=now - change.since,
            facts={"change": change.number, "reason": change.reason, "copies": change.copies},
        )
    )
    return dataclasses.replace(fleet, change=None, owners=change.owners, restless=True)


def _listen(fleet: Fleet, change: Change, now: float) -> Change:
    """Notes since when every router has had the placement."""
    current = all(
        epoch_of(router) == fleet.placement.epoch
        for router in fleet.of(Role.ROUTER)
        if router.phase in UP
    )
    if not current:
        return dataclasses.replace(change, quiet_since=None)
    if change.quiet_since is None:
        return dataclasses.replace(change, quiet_since=now)
    return change


def _ask(fleet: Fleet, change: Change, rules: Rules, actions: list[Action]) -> Fleet:
    """Gives the workers of the wave their commands: one at a time to each, and of loads that
    nobody waits for no more at once than the budget allows."""
    most = rules.loads if change.reason in _PATIENT else None
    wave = change.wave
    asked = set(change.asked)
    busy = {_worker(wave[place]) for place in asked}
    under_way = sum(count(_experts(wave[place])) for place in asked)
    for place, step in enumerate(wave):
        worker = fleet.members.get(_worker(step))
        if place in asked or worker is None or worker.member_id in busy:
            continue
        size = count(_experts(step))
        if isinstance(step, Load) and most is not None and under_way and under_way + size > most:
            break
        command = LoadExperts if isinstance(step, Load) else EvictExperts
        actions.append(
            command(
                worker=worker,
                experts=_experts(step),
                epoch=fleet.placement.epoch,
                change=change.number,
            )
        )
        asked.add(place)
        busy.add(worker.member_id)
        under_way += size
    return dataclasses.replace(fleet, change=dataclasses.replace(change, asked=frozenset(asked)))


def _worker(step: Step) -> str:
    return "" if isinstance(step, Publish) else step.worker_id


def _experts(step: Step) -> dict[int, tuple[int, ...]]:
    return {} if isinstance(step, Publish) else dict(step.experts)
