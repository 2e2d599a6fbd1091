"""Copies that no placement names: kept, given back or dropped."""

from __future__ import annotations

from cluster.fleet import Fleet, Phase, Role
from cluster.holdings import Experts, Owners, count, minus, owned, owners_with, trim
from cluster.planner import Drain, Evict, Load, Publish, Step
from cluster.pursue import begin
from cluster.rules import Rules
from cluster.signals import Action

Share = dict[str, dict[int, tuple[int, ...]]]


def tidy(fleet: Fleet, share: Share, now: float, rules: Rules, actions: list[Action]) -> Fleet:
    """The fleet with such copies seen to: a worker that came back with its experts serves again,
    and those that stood in for it drop theirs; a spare drops what an abandoned change left on it.

    Args:
        share: worker id to what it owns.
    """
    loose: dict[str, Experts] = {}
    for member in fleet.of(Role.EXPERT):
        if member.phase is Phase.READY and not (member.leaving or member.resting):
            extra = minus(member.experts, share.get(member.member_id, {}))
            if extra:
                loose[member.member_id] = extra
    if not loose:
        return fleet
    owners: Owners = fleet.owners
    nobodys: Owners = {layer: ((),) * len(ids) for layer, ids in owners.items()}
    for worker, extra in loose.items():
        if not fleet.members[worker].spare:
            owners = owners_with(owners, worker, extra)
            nobodys = owners_with(nobodys, worker, extra)
    owners = trim(owners, nobodys, rules.redundant)
    steps = steps_to(fleet, owners)
    cause = ", ".join(f"{w} holds {count(e)} copies besides its own" for w, e in loose.items())
    return begin(fleet, "tidy", cause, steps, owners, now, rules, actions)


def steps_to(fleet: Fleet, owners: Owners) -> tuple[Step, ...]:
    """From what ready workers hold to these owners, in one wave: room is not looked at."""
    after = owned(owners)
    held = {
        m.member_id: m.experts
        for m in fleet.of(Role.EXPERT)
        if m.phase is Phase.READY and not (m.leaving or m.resting)
    }
    loads = [(w, more) for w, e in held.items() if (more := minus(after.get(w, {}), e))]
    drops = [(w, gone) for w, e in held.items() if (gone := minus(e, after.get(w, {})))]
    return (
        *(Load(worker_id=w, experts=_tuples(e)) for w, e in loads),
        Publish(owners=owners),
        *(Drain(worker_id=w, experts=_tuples(e)) for w, e in drops),
        *(Evict(worker_id=w, experts=_tuples(e)) for w, e in drops),
    )


def _tuples(experts: Experts) -> dict[int, tuple[int, ...]]:
    return {layer: tuple(ids) for layer, ids in experts.items()}
