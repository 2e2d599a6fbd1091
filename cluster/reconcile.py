"""The controller's mind: (fleet, what happened, when) -> (fleet, what to do). No I/O, no clock.

A worker that dies leaves the placement at once, so that routers ask another owner or park its
rows; what nobody else holds is loaded onto a spare or onto those with room, while its process is
started again.
"""

from __future__ import annotations

import dataclasses

from cluster.fleet import Fleet, Member, Phase, Role, epoch_of, placement_of
from cluster.holdings import Owners, count, minus, owned, owners_with, owners_without
from cluster.life import UP, live_on, other_model, tick
from cluster.muster import hear, muster
from cluster.planning import next_change
from cluster.pursue import abandon, pursue, take_step
from cluster.rules import Rules
from cluster.signals import (
    Action,
    Died,
    DrainAsked,
    Event,
    Evicted,
    Failed,
    Loaded,
    MemberEvent,
    Nodes,
    Note,
    Publish,
    RestartAsked,
    ScaleAsked,
    Seen,
    Tick,
    Weighed,
)


def advance(
    fleet: Fleet, event: Event, now: float, rules: Rules
) -> tuple[Fleet, tuple[Action, ...]]:
    """The fleet after the event, and the actions that this calls for, in order."""
    if fleet.superseded:
        return fleet, ()
    actions: list[Action] = []
    before = fleet
    if isinstance(event, Seen) and event.report.epoch.term > fleet.placement.epoch.term:
        text = f"{event.member_id} has seen term {event.report.epoch.term}"
        return dataclasses.replace(fleet, superseded=True), (Note(kind="superseded", text=text),)
    fleet = _take(fleet, event, now, rules, actions)
    if not fleet.begun:
        fleet = _begin(fleet, actions)
    fleet = _place(before, fleet, now, actions)
    if isinstance(event, Tick):
        fleet = muster(fleet, now, actions)
    if fleet.begun:
        stirred = _stirred(before, fleet)
        if stirred:
            fleet = dataclasses.replace(fleet, restless=True)
        placed = fleet
        fleet = pursue(fleet, now, rules, actions)
        if stirred or isinstance(event, Tick) or (placed.change and not fleet.change):
            fleet = next_change(fleet, now, rules, actions)
            fleet = pursue(fleet, now, rules, actions)
        fleet = _place(placed, fleet, now, actions)
        actions += _tell(before, fleet, event)
    return fleet, tuple(actions)


def _take(fleet: Fleet, event: Event, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    if isinstance(event, Tick):
        return fleet.put(
            *(tick(fleet, member, now, rules, actions) for member in fleet.members.values())
        )
    if isinstance(event, Loaded | Evicted | Failed):
        return take_step(fleet, event, now, actions)
    if isinstance(event, Weighed):
        return dataclasses.replace(fleet, load=event.load, weighed=True)
    if isinstance(event, Nodes | ScaleAsked | DrainAsked | RestartAsked):
        return hear(fleet, event, actions)
    return _member(fleet, event, now, rules, actions)


def _member(
    fleet: Fleet, event: MemberEvent, now: float, rules: Rules, actions: list[Action]
) -> Fleet:
    member = fleet.members.get(event.member_id)
    if member is None:
        return fleet
    if isinstance(event, Seen) and (other := other_model(fleet, member, event.report)):
        event = Died(member_id=member.member_id, error=other)
    after = live_on(member, event, now, rules, actions)
    if member.role is Role.ROUTER:
        fleet = fleet.put(after)
        if isinstance(event, Seen):
            for suspect, (pid, reason) in event.report.suspects.items():
                # It may be another process already, which nobody has found fault with.
                if (known := fleet.members.get(suspect)) is not None and known.pid == pid:
                    died = Died(member_id=suspect, error=f"gives wrong answers: {reason}")
                    fleet = _member(fleet, died, now, rules, actions)
        return fleet
    if isinstance(event, Seen) and after.phase is Phase.READY:
        return _believe(fleet, member, after, actions)
    if after.restarts != member.restarts:
        # It comes back with what nobody takes from it until then.
        mine = owned(fleet.owners).get(member.member_id, {})
        fleet = fleet.put(dataclasses.replace(after, experts=mine, luggage={}))
        change = fleet.change
        if change is not None and (member.member_id in change.workers or count(mine)):
            fleet = abandon(fleet, f"{member.member_id} {after.error}", now, actions)
            # A loss is made good at once.
            return dataclasses.replace(fleet, idle_until=now)
        return fleet
    return fleet.put(after)


def _believe(fleet: Fleet, before: Member, after: Member, actions: list[Action]) -> Fleet:
    """What a ready worker says of what it holds is so, unless it is just being changed."""
    held = after.report.held if after.report else None
    if held is None or (fleet.change is not None and before.phase is Phase.READY):
        return fleet.put(after)
    after = dataclasses.replace(after, doubted=False)
    if minus(held, after.experts) or minus(after.experts, held):
        after = dataclasses.replace(after, experts=held)
        gone = minus(owned(fleet.owners).get(after.member_id, {}), held)
        if gone:
            text = f"does not hold {count(gone)} experts that it should"
            actions.append(Note(kind="experts_missing", subject=after.member_id, text=text))
            kept = owned(fleet.owners).get(after.member_id, {})
            owners = owners_without(fleet.owners, {after.member_id})
            owners = owners_with(owners, after.member_id, minus(kept, gone))
            fleet = dataclasses.replace(fleet, owners=owners, tried={})
    return fleet.put(after)


def _begin(fleet: Fleet, actions: list[Action]) -> Fleet:
    """Begins once all workers are up. A controller that took over does not wait for those that
    fell, but for routers, which go by what the one before it has told them."""
    experts = [m for m in fleet.of(Role.EXPERT) if not m.spare or fleet.resumed]
    if not all(m.phase is Phase.READY or (fleet.resumed and m.failures) for m in experts):
        return fleet
    if fleet.resumed and any(m.phase not in UP and not m.failures for m in fleet.of(Role.ROUTER)):
        return fleet
    if fleet.resumed:
        owners: Owners = {layer: ((),) * len(ids) for layer, ids in fleet.owners.items()}
        for member in experts:
            owners = owners_with(owners, member.member_id, member.experts)
        holders = [dataclasses.replace(m, spare=False) for m in experts if count(m.experts)]
        fleet = dataclasses.replace(fleet.put(*holders), owners=owners)
    text = f"{len(experts)} expert workers"
    actions.append(Note(kind="resumed" if fleet.resumed else "begun", text=text))
    return dataclasses.replace(fleet, begun=True, restless=True)


def _stirred(before: Fleet, after: Fleet) -> bool:
    """Whether there may be something to plan that there was not before."""
    if before is after:
        return False
    if (before.begun, before.owners, before.weighed) != (after.begun, after.owners, after.weighed):
        return True
    if before.members is after.members:
        return False
    return before.members.keys() != after.members.keys() or any(
        _aspect(member) != _aspect(before.members[name])
        for name, member in after.members.items()
        if member is not before.members[name]
    )


def _aspect(member: Member) -> tuple[object, ...]:
    return (
        member.phase,
        member.experts if member.role is Role.EXPERT else epoch_of(member).term,
        member.spare,
        member.leaving,
        member.resting,
        member.doubted,
        member.restarts,
    )


def _place(before: Fleet, fleet: Fleet, now: float, actions: list[Action]) -> Fleet:
    """The fleet with its placement made anew where that may have changed."""
    if not fleet.begun:
        return fleet
    changed = fleet.owners is not before.owners or before.begun is not fleet.begun
    if not changed and fleet.members is not before.members:
        changed = before.members.keys() != fleet.members.keys() or any(
            (m.phase, m.address, m.fingerprint, m.node)
            != (o.phase, o.address, o.fingerprint, o.node)
            for m, o in ((m, before.members[name]) for name, m in fleet.members.items())
            if m is not o
        )
    if changed:
        fleet = dataclasses.replace(fleet, placement=placement_of(fleet))
    if fleet.placement is before.placement:
        return fleet
    placement = fleet.placement
    missing = sum(not ids for experts in placement.owners.values() for ids in experts)
    epoch = placement.epoch
    actions.append(
        Note(
            kind="epoch_published",
            text=f"{epoch.term}.{epoch.counter}: {len(placement.workers)} workers, "
            f"{missing} experts without an owner",
            facts={"term": epoch.term, "counter": epoch.counter, "missing": missing},
        )
    )
    if missing and fleet.lost_since is None:
        actions.append(Note(kind="experts_lost", text=f"{missing} experts have no live copy"))
        return dataclasses.replace(fleet, lost_since=now)
    if not missing and fleet.lost_since is not None:
        took = now - fleet.lost_since
        actions.append(
            Note(kind="experts_recovered", text="every expert has a live copy", seconds=took)
        )
        return dataclasses.replace(fleet, lost_since=None)
    return fleet


def _tell(before: Fleet, fleet: Fleet, event: Event) -> list[Publish]:
    """The placement for the routers that may not have it."""
    placement = fleet.placement
    reached = fleet.of(Role.ROUTER)
    if placement is before.placement:
        seen = event.member_id if isinstance(event, Seen) else ""
        reached = [router for router in reached if router.member_id == seen]
    return [
        Publish(router=router, placement=placement)
        for router in reached
        if router.phase in UP and placement.epoch.counter and epoch_of(router) != placement.epoch
    ]
