"""Who should be in the fleet: workers that are wanted, spares, those that go or start anew."""

from __future__ import annotations

import dataclasses

from cluster.fleet import Fleet, Member, Phase, Role
from cluster.holdings import count, owned
from cluster.life import start_anew
from cluster.signals import Action, Ask, Nodes, Note, RestartAsked, ScaleAsked
from cluster.turnover import dismiss, turn_over


def hear(fleet: Fleet, event: Ask | Nodes, actions: list[Action]) -> Fleet:
    """The fleet with what somebody asks for as its aim; the rest follows from that."""
    if isinstance(event, ScaleAsked):
        _note(actions, event, f"{event.workers} expert workers")
        return dataclasses.replace(fleet, workers=event.workers, restless=True)
    if isinstance(event, RestartAsked):
        _note(actions, event, "every expert worker and router is to be started anew")
        members = fleet.of(Role.EXPERT) + fleet.of(Role.ROUTER)
        return dataclasses.replace(
            fleet, restarts=tuple(m.member_id for m in members if not m.leaving)
        )
    if isinstance(event, Nodes):
        news = event.leaving - fleet.avoid
        if not news:
            return fleet
        fleet = dataclasses.replace(fleet, avoid=fleet.avoid | news)
        for node in sorted(news):
            actions.append(Note(kind="node_leaving", subject=node, text="Ray drains it"))
        return _leave(fleet, [m for m in fleet.members.values() if m.node in news])
    _note(actions, event, f"{', '.join(sorted(event.names))} to be emptied and ended")
    nodes = {m.node for m in fleet.members.values() if m.node in event.names}
    chosen = [m for m in fleet.members.values() if {m.member_id, m.node} & event.names]
    experts = [m for m in chosen if m.role is Role.EXPERT]
    served = sum(not m.spare and not m.leaving for m in experts)
    fleet = dataclasses.replace(
        fleet,
        workers=max(1, fleet.workers - served),
        spares=max(0, fleet.spares - sum(m.spare for m in experts)),
        avoid=fleet.avoid | nodes,
    )
    return _leave(fleet, chosen)


def muster(fleet: Fleet, now: float, actions: list[Action]) -> Fleet:
    """Starts who is missing, ends who is through, and has the next worker start anew."""
    if not fleet.begun:
        return fleet
    fleet = turn_over(fleet, now, actions)
    if fleet.change is not None:
        return fleet
    share = owned(fleet.owners) if _anybody_goes(fleet) else {}
    for member in fleet.of(Role.EXPERT):
        empty = member.member_id not in share
        if member.leaving and empty:
            fleet = dismiss(fleet, member, actions)
        elif member.resting and (empty or "drain" in fleet.tried):
            # Whoever could not be emptied has rows waiting for it for a while.
            fleet = _rest(fleet, member, now, actions)
    fleet = _restart_next(fleet, now, actions)
    return _grow(fleet, now)


def _anybody_goes(fleet: Fleet) -> bool:
    return any(m.leaving or m.resting for m in fleet.of(Role.EXPERT))


def _leave(fleet: Fleet, members: list[Member]) -> Fleet:
    fleet = fleet.put(*(dataclasses.replace(m, leaving=True) for m in members))
    return dataclasses.replace(fleet, restless=True)


def _rest(fleet: Fleet, member: Member, now: float, actions: list[Action]) -> Fleet:
    others = [m for m in fleet.serving if m is not member]
    standing_by = sum(m.spare for m in fleet.of(Role.EXPERT))
    replaced = len(others) >= fleet.workers and standing_by < fleet.spares
    spare = replaced or member.spare
    anew = start_anew(member, now, actions)
    return fleet.put(
        dataclasses.replace(anew, spare=spare, experts={} if spare else member.luggage, luggage={})
    )


def _restart_next(fleet: Fleet, now: float, actions: list[Action]) -> Fleet:
    """One at a time, and only while nobody else is missing."""
    # One that was refused for good is not waited for.
    if not fleet.restarts or any(
        m.phase not in (Phase.READY, Phase.DOWN) or m.resting or m.leaving
        for m in fleet.members.values()
    ):
        return fleet
    first, *rest = fleet.restarts
    fleet = dataclasses.replace(fleet, restarts=tuple(rest), restless=True)
    member = fleet.members.get(first)
    if member is None or member.leaving or member.phase is not Phase.READY:
        return fleet
    if member.role is Role.ROUTER:
        return fleet.put(dataclasses.replace(member, leaving=True))
    if not count(member.experts):
        return _rest(fleet, member, now, actions)
    tried = {kind: what for kind, what in fleet.tried.items() if kind != "drain"}
    fleet = dataclasses.replace(fleet, tried=tried)
    return fleet.put(dataclasses.replace(member, resting=True, luggage=member.experts))


def _grow(fleet: Fleet, now: float) -> Fleet:
    missing = fleet.workers - len(fleet.serving)
    standing_by = [m for m in fleet.of(Role.EXPERT) if m.spare and not m.leaving]
    fresh: list[Member] = []
    for spare in [False] * missing + [True] * (fleet.spares - len(standing_by)):
        number = fleet.number + 1 + len(fresh)
        fresh.append(Member(member_id=f"expert-{number}", role=Role.EXPERT, spare=spare, since=now))
    if not fresh:
        return fleet
    fleet = dataclasses.replace(fleet, number=fleet.number + len(fresh))
    return fleet.put(*fresh)


def _note(actions: list[Action], event: Ask, text: str) -> None:
    actions.append(Note(kind="asked", text=text, facts={"by": event.by}))
