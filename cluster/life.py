"""One member's life: started, loading, ready, fallen, started again. No I/O, no clock."""

from __future__ import annotations

import dataclasses

from cluster.fleet import Fleet, Member, Phase, Report, Role
from cluster.rules import Rules
from cluster.signals import (
    Absent,
    Action,
    Died,
    Kill,
    Launch,
    Launched,
    MemberEvent,
    Missed,
    Note,
    Seen,
)

_BACKOFF_S = 0.5
_BACKOFF_MOST_S = 30.0
_BACKOFF_MOST_DOUBLINGS = 10
# A member that was ready for so long has come up for good; one that falls sooner waits longer.
_STEADY_S = 60.0
# So many times the misses one that loads may have: it serves nobody yet, and what leaves the
# processors to others may be slow to answer.
_LOADING = 10

UP = (Phase.LOADING, Phase.READY, Phase.DRAINING)


def tick(fleet: Fleet, member: Member, now: float, rules: Rules, actions: list[Action]) -> Member:
    """Starts it when it is time, and gives up one that does not get ready."""
    if member.phase is Phase.PENDING and now >= member.not_before:
        if member.spare and not (fleet.begun or fleet.resumed):
            # It would only take processor time from those that are waited for.
            return member
        member = dataclasses.replace(
            member,
            phase=Phase.STARTING,
            since=now,
            address="",
            metrics_address="",
            node="",
            misses=0,
        )
        actions.append(Launch(member=member, avoid=fleet.avoid, polite=_unhurried(fleet, member)))
    elif member.phase in (Phase.STARTING, Phase.LOADING):
        waited = now - member.since
        if waited > rules.start_timeout_s:
            return fall(member, f"was not ready after {waited:.0f} s", now, actions)
    return member


def _unhurried(fleet: Fleet, member: Member) -> bool:
    """Whether others serve meanwhile and nobody waits for this one. One that fell is waited for:
    until it is back there are fewer copies than there should be."""
    if not fleet.begun or member.failures:
        return False
    if member.role is Role.ROUTER:
        return any(m.phase is Phase.READY for m in fleet.of(Role.ROUTER))
    return fleet.lost_since is None


def live_on(
    member: Member, event: MemberEvent, now: float, rules: Rules, actions: list[Action]
) -> Member:
    """The member after the event."""
    if isinstance(event, Launched) and member.phase is Phase.STARTING:
        return dataclasses.replace(
            member,
            phase=Phase.LOADING,
            address=event.address,
            metrics_address=event.metrics_address,
            node=event.node,
            pid=event.pid,
        )
    if isinstance(event, Absent):
        error = "its process was gone when this controller took over"
        actions.append(Note(kind="member_died", subject=member.member_id, text=error))
        return dataclasses.replace(member, failures=member.failures + 1, error=error)
    if isinstance(event, Died) and member.phase not in (Phase.PENDING, Phase.DOWN):
        return fall(member, event.error, now, actions)
    if member.phase in UP:
        if isinstance(event, Missed):
            misses = member.misses + 1
            if misses >= rules.misses * (_LOADING if member.phase is Phase.LOADING else 1):
                error = f"did not answer {misses} health checks: {event.error}"
                return fall(member, error, now, actions)
            return dataclasses.replace(member, misses=misses)
        if isinstance(event, Seen):
            return _seen(member, event.report, now, rules, actions)
    return member


def fall(member: Member, error: str, now: float, actions: list[Action]) -> Member:
    """It is to be started again; what it was told to be emptied for has happened."""
    actions.append(Kill(member_id=member.member_id))
    actions.append(
        Note(kind="member_died", subject=member.member_id, text=error, facts={"pid": member.pid})
    )
    doublings = min(member.failures, _BACKOFF_MOST_DOUBLINGS)
    wait = min(_BACKOFF_S * 2.0**doublings, _BACKOFF_MOST_S) if doublings else 0.0
    return dataclasses.replace(
        member,
        phase=Phase.PENDING,
        report=None,
        pid=0,
        error=error,
        leaving=False,
        resting=False,
        doubted=False,
        failures=member.failures + 1,
        restarts=member.restarts + 1,
        since=now,
        not_before=now + wait,
    )


def start_anew(member: Member, now: float, actions: list[Action]) -> Member:
    """Ends the member's process and has another one started, which is no failure."""
    actions.append(Kill(member_id=member.member_id))
    actions.append(Note(kind="member_restarted", subject=member.member_id, text="as asked"))
    return dataclasses.replace(
        member,
        phase=Phase.PENDING,
        report=None,
        pid=0,
        error="",
        resting=False,
        doubted=False,
        restarts=member.restarts + 1,
        since=now,
        not_before=now,
    )


def other_model(fleet: Fleet, member: Member, report: Report) -> str:
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


def _seen(
    member: Member, report: Report, now: float, rules: Rules, actions: list[Action]
) -> Member:
    if report.state == "failed":
        return fall(member, report.error or "reports that it failed", now, actions)
    known = member.fingerprint
    if rules.strict and known and report.fingerprint and report.fingerprint != known:
        # Its arithmetic has other bits: to continue a request with it would not be exact.
        actions.append(Kill(member_id=member.member_id))
        error = (
            f"came back with numerics {report.fingerprint}, was {known}, and `exactness` is strict"
        )
        actions.append(Note(kind="member_refused", subject=member.member_id, text=error))
        return dataclasses.replace(
            member, phase=Phase.DOWN, leaving=True, report=report, since=now, error=error
        )
    phase = Phase(report.state)
    ready = phase is Phase.READY
    steady = ready and member.phase is Phase.READY and now - member.since >= _STEADY_S
    if ready and member.phase is not Phase.READY:
        actions.append(
            Note(
                kind="member_ready",
                subject=member.member_id,
                text=f"at {member.address}",
                seconds=now - member.since,
                facts={"pid": member.pid},
            )
        )
    elif phase is Phase.DRAINING and member.phase is not phase:
        actions.append(
            Note(kind="member_draining", subject=member.member_id, text="takes nothing new")
        )
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
