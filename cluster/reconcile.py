"""The controller's mind: (fleet, what happened, when) -> (fleet, what to do). No I/O, no clock.

A worker that dies leaves the placement at once, so that routers park its rows; the same experts
are started again in its name, and it comes back into the placement when it is ready.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias

from cluster.fleet import Fleet, Member, Phase, Report, Role, epoch_of, placement_of
from wire.placement import Placement

_BACKOFF_S = 0.5
_BACKOFF_MOST_S = 30.0
_BACKOFF_MOST_DOUBLINGS = 10
# A member that was ready for so long has come up for good; one that falls sooner waits longer.
_STEADY_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """misses: unanswered checks in a row until a process is replaced. start_timeout_s: from the
    start of a process until it must be ready. strict: a member's successor must have its bits."""

    misses: int
    start_timeout_s: float
    strict: bool = True


# What happened.


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A process is up and can be asked."""

    member_id: str
    address: str
    metrics_address: str
    node: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A process answered a health check."""

    member_id: str
    report: Report


@dataclass(frozen=True, kw_only=True)
class Missed:
    """A process did not answer in time, but may live."""

    member_id: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Died:
    """A process is gone, or never came up."""

    member_id: str
    error: str


Event: TypeAlias = Tick | Launched | Seen | Missed | Died

# What to do.


@dataclass(frozen=True, kw_only=True)
class Launch:
    member: Member


@dataclass(frozen=True, kw_only=True)
class Kill:
    member_id: str


@dataclass(frozen=True, kw_only=True)
class Publish:
    router: Member
    placement: Placement


Action: TypeAlias = Launch | Kill | Publish


def advance(
    fleet: Fleet, event: Event, now: float, rules: Rules
) -> tuple[Fleet, tuple[Action, ...]]:
    """The fleet after the event, and the actions that this calls for, in order."""
    if fleet.superseded:
        return fleet, ()
    actions: list[Action] = []
    if isinstance(event, Tick):
        for member in fleet.members.values():
            fleet = _put(fleet, _tick(member, now, rules, actions))
    elif event.member_id in fleet.members:
        member = fleet.members[event.member_id]
        if isinstance(event, Seen) and event.report.epoch.term > fleet.placement.epoch.term:
            return dataclasses.replace(fleet, superseded=True), ()
        if isinstance(event, Seen) and (other := _other_model(fleet, member, event.report)):
            event = Died(member_id=member.member_id, error=other)
        fleet = _put(fleet, _member(member, event, now, rules, actions))
    before, placement = fleet.placement, placement_of(fleet)
    fleet = dataclasses.replace(fleet, placement=placement)
    if placement is not before:
        reached = fleet.of(Role.ROUTER)
    else:
        seen = event.member_id if isinstance(event, Seen) else ""
        reached = [r for r in fleet.of(Role.ROUTER) if r.member_id == seen]
    actions += [
        Publish(router=router, placement=placement)
        for router in reached
        if router.phase in (Phase.LOADING, Phase.READY)
        and placement.epoch.counter
        and epoch_of(router) != placement.epoch
    ]
    return fleet, tuple(actions)


def _tick(member: Member, now: float, rules: Rules, actions: list[Action]) -> Member:
    if member.phase is Phase.PENDING and now >= member.not_before:
        member = dataclasses.replace(
            member, phase=Phase.STARTING, since=now, address="", metrics_address="", pid=0, misses=0
        )
        actions.append(Launch(member=member))
    elif member.phase in (Phase.STARTING, Phase.LOADING):
        waited = now - member.since
        if waited > rules.start_timeout_s:
            error = f"was not ready after {waited:.0f} s"
            return _fall(member, error, now, actions)
    return member


def _member(
    member: Member, event: Event, now: float, rules: Rules, actions: list[Action]
) -> Member:
    if isinstance(event, Launched) and member.phase is Phase.STARTING:
        return dataclasses.replace(
            member,
            phase=Phase.LOADING,
            address=event.address,
            metrics_address=event.metrics_address,
            node=event.node,
            pid=event.pid,
        )
    if isinstance(event, Died) and member.phase not in (Phase.PENDING, Phase.DOWN):
        return _fall(member, event.error, now, actions)
    if member.phase in (Phase.LOADING, Phase.READY, Phase.DRAINING):
        if isinstance(event, Missed):
            misses = member.misses + 1
            if misses >= rules.misses:
                error = f"did not answer {misses} health checks: {event.error}"
                return _fall(member, error, now, actions)
            return dataclasses.replace(member, misses=misses)
        if isinstance(event, Seen):
            return _seen(member, event.report, now, rules, actions)
    return member


def _seen(
    member: Member, report: Report, now: float, rules: Rules, actions: list[Action]
) -> Member:
    if report.state == "failed":
        return _fall(member, report.error or "reports that it failed", now, actions)
    known = member.fingerprint
    if rules.strict and known and report.fingerprint and report.fingerprint != known:
        # Its arithmetic has other bits: to continue a request with it would not be exact.
        actions.append(Kill(member_id=member.member_id))
        return dataclasses.replace(
            member,
            phase=Phase.DOWN,
            report=report,
            since=now,
            error=f"came back with numerics {report.fingerprint}, was {known}, and `exactness` "
            "is strict",
        )
    phase = Phase(report.state)
    ready = phase is Phase.READY
    steady = ready and member.phase is Phase.READY and now - member.since >= _STEADY_S
    return dataclasses.replace(
        member,
        phase=phase,
        report=report,
        fingerprint=known or report.fingerprint,
        misses=0,
        failures=0 if steady else member.failures,
        error="" if ready else member.error,
        since=member.since if phase is member.phase else now,
    )


def _other_model(fleet: Fleet, member: Member, report: Report) -> str:
    """Why the member must not serve with the others: its checkpoint is not theirs. Or empty."""
    for known in fleet.members.values():
        if known.member_id == member.member_id or known.report is None:
            continue
        theirs = known.report.model_hash
        if theirs and report.model_hash and theirs != report.model_hash:
            return (
                f"its model directory holds checkpoint {report.model_hash[:12]}, that of "
                f"{known.member_id} holds {theirs[:12]}"
            )
    return ""


def _fall(member: Member, error: str, now: float, actions: list[Action]) -> Member:
    actions.append(Kill(member_id=member.member_id))
    doublings = min(member.failures, _BACKOFF_MOST_DOUBLINGS)
    wait = min(_BACKOFF_S * 2.0**doublings, _BACKOFF_MOST_S) if doublings else 0.0
    return dataclasses.replace(
        member,
        phase=Phase.PENDING,
        report=None,
        error=error,
        failures=member.failures + 1,
        restarts=member.restarts + 1,
        since=now,
        not_before=now + wait,
    )


def _put(fleet: Fleet, member: Member) -> Fleet:
    if fleet.members[member.member_id] is member:
        return fleet
    return dataclasses.replace(fleet, members={**fleet.members, member.member_id: member})
