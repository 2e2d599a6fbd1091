"""What should change next in a fleet that is at rest; the planner's functions decide how.

In this order: what is lost, what is to be emptied, what is too much, what came back, balance.
"""

from __future__ import annotations

import dataclasses

from cluster import questions
from cluster.errors import PlanError
from cluster.fleet import Fleet, Phase, Role, epoch_of
from cluster.holdings import Experts, count, owned, owners_without
from cluster.layer_moves import deal_out
from cluster.life import UP
from cluster.planner import Load, Step
from cluster.planners_view import workers_of
from cluster.pursue import begin
from cluster.questions import consult
from cluster.rules import Rules
from cluster.signals import Action, Note
from cluster.tidying import steps_to, tidy

# So long nothing is balanced while a worker is on its way up.
_PATIENCE_S = 60.0

Share = dict[str, dict[int, tuple[int, ...]]]


def next_change(fleet: Fleet, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    """The fleet with its next change begun, or at rest if there is nothing to change."""
    if fleet.change is not None or not fleet.restless or now < fleet.idle_until:
        return fleet
    if not _heard(fleet) or any(m.doubted for m in fleet.of(Role.EXPERT)):
        return fleet
    if not any(m.phase is Phase.READY for m in fleet.of(Role.EXPERT)):
        return fleet
    fleet, share = dataclasses.replace(fleet, waits=False), owned(fleet.owners)
    for plan in (_repair, _empty, _shrink, tidy, _balance):
        planned = plan(fleet, share, now, rules, actions)
        if planned.change is not None or planned.waits:
            return planned
        fleet = planned
    waiting = fleet.weighed or _coming(fleet, now)
    return dataclasses.replace(fleet, restless=waiting, thought=None)


def _heard(fleet: Fleet) -> bool:
    """Whether every router goes by a placement of this term: until then workers that are told of
    the term would refuse its messages."""
    term = fleet.placement.epoch.term
    return all(epoch_of(r).term == term for r in fleet.of(Role.ROUTER) if r.phase in UP)


def _circumstances(fleet: Fleet) -> object:
    """What a plan depends on; nothing is planned twice for the same."""
    return frozenset(
        (m.member_id, m.restarts, m.spare, m.leaving or m.resting)
        for m in fleet.of(Role.EXPERT)
        if m.phase is Phase.READY
    )


def _is_new(fleet: Fleet, kind: str) -> bool:
    return fleet.tried.get(kind) != _circumstances(fleet)


def _tried(fleet: Fleet, kind: str) -> Fleet:
    return dataclasses.replace(fleet, tried={**fleet.tried, kind: _circumstances(fleet)})


def _repair(fleet: Fleet, share: Share, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    dead = sorted(
        worker
        for worker in share
        if worker not in fleet.members or fleet.members[worker].phase is not Phase.READY
    )
    orphans = any(not ids for experts in fleet.owners.values() for ids in experts)
    if not (dead or orphans) or not _is_new(fleet, "repair"):
        return fleet
    fleet, found = consult(fleet, questions.repair(fleet, rules), actions)
    if found is None:
        return fleet
    fleet = _tried(fleet, "repair")
    nowhere = count(found.nowhere)
    if nowhere:
        actions.append(
            Note(
                kind="experts_without_room",
                text=f"{nowhere} experts wait for {', '.join(dead) or 'a worker'}",
                facts={"experts": nowhere},
            )
        )
    if not found.transition.steps:
        return fleet
    fleet = _stand_in(fleet, dead, found.transition.steps, found.nowhere)
    lost = count(found.lost)
    cause = f"{', '.join(dead) or 'nobody'} had {lost} experts that nobody else holds"
    return begin(
        fleet,
        "repair",
        cause,
        found.transition.steps,
        found.transition.owners,
        now,
        rules,
        actions,
    )


def _stand_in(fleet: Fleet, dead: list[str], steps: tuple[Step, ...], nowhere: Experts) -> Fleet:
    """Spares that are given experts are spares no more; so many of those whose place they take
    come back as spares."""
    used = [
        dataclasses.replace(fleet.members[step.worker_id], spare=False)
        for step in steps
        if isinstance(step, Load) and fleet.members[step.worker_id].spare
    ]
    fleet = fleet.put(*used)
    standing_by = sum(m.spare for m in fleet.of(Role.EXPERT))
    for worker in dead:
        member = fleet.members.get(worker)
        if member is None or standing_by >= fleet.spares or len(fleet.serving) <= fleet.workers:
            continue
        if nowhere:
            # It is still waited for.
            continue
        fleet = fleet.put(dataclasses.replace(member, spare=True, experts={}))
        fleet = dataclasses.replace(fleet, owners=owners_without(fleet.owners, {worker}))
        standing_by += 1
    return fleet


def _empty(fleet: Fleet, share: Share, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    leaving = frozenset(m.member_id for m in fleet.of(Role.EXPERT) if m.leaving or m.resting)
    full = sorted(leaving & share.keys())
    if not full or not _is_new(fleet, "drain"):
        return fleet
    # Those that leave for good were not wanted any more, and need no spare in their place.
    short = len(fleet.serving) < fleet.workers or any(fleet.members[w].resting for w in full)
    question = questions.drain(fleet, rules, leaving, spares=(True,) if short else (False, True))
    fleet, found = consult(fleet, question, actions)
    if found is None:
        return fleet
    fleet = _tried(fleet, "drain")
    stuck = sorted(leaving & owned(found.transition.owners).keys())
    if stuck:
        text = f"{', '.join(stuck)} cannot be emptied: nobody has room and the same bits"
        actions.append(Note(kind="drain_blocked", text=text))
    if not found.transition.steps:
        return fleet
    fleet = _stand_in(fleet, [], found.transition.steps, {})
    return begin(
        fleet,
        "drain",
        f"{', '.join(full)} is to be emptied",
        found.transition.steps,
        found.transition.owners,
        now,
        rules,
        actions,
    )


def _shrink(fleet: Fleet, share: Share, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    staying = [m for m in fleet.serving if not m.resting]
    surplus = len(staying) - fleet.workers
    if surplus <= 0:
        return fleet
    idle = [m for m in staying if m.member_id not in share and not count(m.experts)]
    if idle:
        gone = sorted(idle, key=lambda m: (m.phase is Phase.READY, m.member_id))[:surplus]
        return fleet.put(*(dataclasses.replace(m, leaving=True) for m in gone))
    ready = [m for m in staying if m.phase is Phase.READY]
    if not _is_new(fleet, "scale") or len(ready) < len(staying):
        return fleet
    fleet, found = consult(fleet, questions.scale(fleet, rules), actions)
    if found is None:
        return fleet
    fleet = _tried(fleet, "scale")
    if isinstance(found, PlanError):
        actions.append(Note(kind="scale_refused", text=str(found)))
        return dataclasses.replace(fleet, workers=len(staying))
    fleet = fleet.put(*(dataclasses.replace(fleet.members[w], leaving=True) for w in found.leaving))
    moves = found.rebalance.transition
    return begin(
        fleet,
        "scale",
        f"{', '.join(found.leaving)} is not needed any more",
        moves.steps,
        moves.owners,
        now,
        rules,
        actions,
    )


def _balance(fleet: Fleet, share: Share, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    if _coming(fleet, now):
        return fleet
    joined = frozenset((m.member_id, m.node) for m in fleet.serving if m.phase is Phase.READY)
    if fleet.tried.get("balance") == joined and not fleet.weighed:
        return fleet
    fleet, found = consult(fleet, questions.balance(fleet, rules), actions)
    if found is None:
        return fleet
    fleet = dataclasses.replace(fleet, weighed=False, tried={**fleet.tried, "balance": joined})
    if not found.transition.steps:
        return _deal_out(fleet, now, rules, actions)
    before, after = found.fleet_before, found.fleet_after
    return begin(
        fleet,
        "balance",
        f"balancedness {before:.3f} is to be {after:.3f}",
        found.transition.steps,
        found.transition.owners,
        now,
        rules,
        actions,
    )


def _deal_out(fleet: Fleet, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    owners = deal_out(fleet.owners, workers_of(fleet, rules), rules.expert_bytes)
    if owners == fleet.owners:
        return fleet
    return begin(
        fleet,
        "balance",
        "whole layers are dealt out anew",
        steps_to(fleet, owners),
        owners,
        now,
        rules,
        actions,
    )


def _coming(fleet: Fleet, now: float) -> bool:
    """Whether a worker is on its way up that should soon take part."""
    return any(
        m.phase in (Phase.PENDING, Phase.STARTING, Phase.LOADING) and now - m.since < _PATIENCE_S
        for m in fleet.serving
    )
