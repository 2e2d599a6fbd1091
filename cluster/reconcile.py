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
from cluster.planners_view import weigh
from cluster.planning import next_change
from cluster.pursue import abandon, pursue, take_step
from cluster.rules import Rules
from cluster.signals import (
    Action,
    Answered,
    Died,
    DrainAsked,
    Drained,
    Event,
    Evicted,
    Failed,
    Loaded,
    MemberEvent,
    News,
    Nodes,
    Note,
    Overtaken,
    Publish,
    RestartAsked,
    ScaleAsked,
    Seen,
    Tick,
    Weighed,
)
from cluster.thought import Thought
from cluster.turnover import dismiss

# So long a controller that took over waits for processes that should be there and do not answer.
_TAKEOVER_S = 10.0
_COMING = (Phase.STARTING, Phase.LOADING)


def advance(
    fleet: Fleet, event: Event, now: float, rules: Rules
) -> tuple[Fleet, tuple[Action, ...]]:
    """The fleet after the event, and the actions that this calls for, in order."""
    if fleet.superseded:
        return fleet, ()
    actions: list[Action] = []
    before = fleet
    if isinstance(event, Overtaken):
        return _stand_back(fleet, "the journal has given out a higher term")
    if isinstance(event, Seen) and event.report.term > fleet.placement.epoch.term:
        return _stand_back(fleet, f"{event.member_id} has heard term {event.report.term}")
    fleet = _take(fleet, event, now, rules, actions)
    if not fleet.begun:
        fleet = _begin(fleet, now, actions)
    fleet = _place(before, fleet, now, actions)
    if isinstance(event, Tick):
        fleet = muster(fleet, now, actions)
    if fleet.begun:
        stirred = _stirred(before, fleet)
        if stirred:
            fleet = dataclasses.replace(fleet, restless=True)
        placed = fleet
        fleet = pursue(fleet, now, rules, actions)
        if stirred or isinstance(event, Tick | Answered) or (placed.change and not fleet.change):
            fleet = next_change(fleet, now, rules, actions)
            fleet = pursue(fleet, now, rules, actions)
        fleet = _place(placed, fleet, now, actions)
        actions += _tell(before, fleet, event)
    return fleet, tuple(actions)


def _stand_back(fleet: Fleet, why: str) -> tuple[Fleet, tuple[Action, ...]]:
    return dataclasses.replace(fleet, superseded=True), (Note(kind="superseded", text=why),)


def _take(fleet: Fleet, event: News, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    if isinstance(event, Tick):
        return fleet.put(
            *(tick(fleet, member, now, rules, actions) for member in fleet.members.values())
        )
    if isinstance(event, Loaded | Evicted | Failed):
        return take_step(fleet, event, now, actions)
    if isinstance(event, Answered):
        return _learn(fleet, event)
    if isinstance(event, Weighed):
        return weigh(fleet, event.load, rules)
    if isinstance(event, Nodes | ScaleAsked | DrainAsked | RestartAsked):
        return hear(fleet, event, actions)
    return _member(fleet, event, now, rules, actions)


def _learn(fleet: Fleet, event: Answered) -> Fleet:
    if fleet.thought is None or fleet.thought.question is not event.question:
        return fleet
    thought = Thought(question=event.question, answer=event.answer)
    return dataclasses.replace(fleet, thought=thought)


def _member(
    fleet: Fleet, event: MemberEvent, now: float, rules: Rules, actions: list[Action]
) -> Fleet:
    member = fleet.members.get(event.member_id)
    if member is None:
        return fleet
    if isinstance(event, Seen) and (other := other_model(fleet, member, event.report)):
        event = Died(member_id=member.member_id, error=other)
    if isinstance(event, Drained):
        return dismiss(fleet, member, actions) if member.leaving else fleet
    after = live_on(member, event, now, rules, actions)
    if after.phase is Phase.DOWN and member.phase is not Phase.DOWN:
        fleet = _shun(fleet, after)
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


def _shun(fleet: Fleet, refused: Member) -> Fleet:
    """Who takes the place of a refused member is started elsewhere, if there is an elsewhere: that
    machine has other bits now."""
    others = {m.node for m in fleet.members.values() if m.phase in UP} - {refused.node, ""}
    if not others or not refused.node:
        return fleet
    return dataclasses.replace(fleet, avoid=fleet.avoid | {refused.node})


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


def _begin(fleet: Fleet, now: float, actions: list[Action]) -> Fleet:
    """Begins once all workers are up. A controller that took over waits for routers too, which go
    by what the one before it has told them, but not for those that fell, nor long for the silent.
    """
    experts = [m for m in fleet.of(Role.EXPERT) if not m.spare or fleet.resumed]
    given_up = {
        m.member_id
        for m in fleet.members.values()
        if fleet.resumed and (m.failures or (m.phase in _COMING and now - m.since > _TAKEOVER_S))
    }
    if not all(m.phase is Phase.READY or m.member_id in given_up for m in experts):
        return fleet
    routers = [m for m in fleet.of(Role.ROUTER) if m.member_id not in given_up]
    if fleet.resumed and any(m.phase not in UP for m in routers):
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
