"""Routers that are to go: another one is ready before, and what they have begun they finish."""

from __future__ import annotations

import dataclasses

from cluster.fleet import Fleet, Member, Phase, Role, epoch_of
from cluster.life import UP
from cluster.signals import Action, DrainRouter, Kill, Note

# So often the one that is to take over may fall before the old one is kept.
_TRIES = 2
# In this time every gateway has asked anew where requests go to, see `Fleet.takers`.
_NOTICE_S = 2.0


def turn_over(fleet: Fleet, now: float, actions: list[Action]) -> Fleet:
    """The fleet with the next step of each replacement taken."""
    routers = fleet.of(Role.ROUTER)
    going = [m for m in routers if m.leaving]
    staying = [m for m in routers if not m.leaving]
    if not going and len(staying) == fleet.routers:
        return fleet
    if len(staying) < fleet.routers:
        return _add(fleet, fleet.routers - len(staying), now)
    if len(staying) > fleet.routers:
        return _without_surplus(fleet, staying, actions)
    if any(m.failures >= _TRIES for m in staying):
        return _keep(fleet, going, actions)
    for member in going:
        if member.phase not in UP:
            fleet = dismiss(fleet, member, actions)
        elif not member.resting and all(_known(fleet, m, now) for m in staying):
            actions.append(DrainRouter(router=member))
            fleet = fleet.put(dataclasses.replace(member, resting=True))
    return fleet


def dismiss(fleet: Fleet, member: Member, actions: list[Action]) -> Fleet:
    """The fleet without the member, whose process is ended."""
    actions.append(Kill(member_id=member.member_id))
    actions.append(Note(kind="member_left", subject=member.member_id, text="emptied and ended"))
    left = {name: m for name, m in fleet.members.items() if name != member.member_id}
    return dataclasses.replace(fleet, members=left, restless=True)


def _known(fleet: Fleet, member: Member, now: float) -> bool:
    """Whether it can serve, and gateways know of it."""
    informed = epoch_of(member) == fleet.placement.epoch
    return member.phase is Phase.READY and informed and now - member.since >= _NOTICE_S


def _add(fleet: Fleet, count: int, now: float) -> Fleet:
    first = fleet.router_number + 1
    fresh = [
        Member(member_id=f"router-{number}", role=Role.ROUTER, since=now)
        for number in range(first, first + count)
    ]
    return dataclasses.replace(fleet.put(*fresh), router_number=fleet.router_number + count)


def _without_surplus(fleet: Fleet, staying: list[Member], actions: list[Action]) -> Fleet:
    """Those go first that serve nobody: such as one that fell while it was being replaced."""
    surplus = len(staying) - fleet.routers
    idle = [m for m in staying if m.phase not in UP]
    for member in idle[:surplus]:
        fleet = dismiss(fleet, member, actions)
    ready = [m for m in staying if m.phase in UP][: max(0, surplus - len(idle))]
    return fleet.put(*(dataclasses.replace(m, leaving=True) for m in ready))


def _keep(fleet: Fleet, going: list[Member], actions: list[Action]) -> Fleet:
    """Those that nobody can take over from go on."""
    kept = [m for m in going if not m.resting]
    for member in kept:
        text = "goes on: the router that was to take over does not come up"
        actions.append(Note(kind="router_kept", subject=member.member_id, text=text))
    return fleet.put(*(dataclasses.replace(m, leaving=False) for m in kept))
