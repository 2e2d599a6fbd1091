"""The questions that plans raise, and how their answers are waited for."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from cluster import planner
from cluster.errors import PlanError
from cluster.fleet import Fleet
from cluster.holdings import owned
from cluster.planner import Rebalance, Repair, Scale
from cluster.planners_view import load_of, workers_of
from cluster.rules import Rules
from cluster.signals import Action, Ponder
from cluster.thought import Question, Thought

Found = TypeVar("Found")


def consult(
    fleet: Fleet, question: Question[Found], actions: list[Action]
) -> tuple[Fleet, Found | None]:
    """The planner's answer; None, and the fleet `waits`, as long as it is being worked out."""
    known = fleet.thought
    if known is not None and known.question.same(question):
        if known.answer is None:
            return dataclasses.replace(fleet, waits=True), None
        found: Found = known.answer
        return dataclasses.replace(fleet, thought=None), found
    actions.append(Ponder(question=question))
    return dataclasses.replace(fleet, thought=Thought(question=question), waits=True), None


def repair(fleet: Fleet, rules: Rules) -> Question[Repair]:
    """What to load where, since experts are lost."""
    workers, load = workers_of(fleet, rules), load_of(fleet)
    return Question(
        about="repair",
        owners=fleet.owners,
        workers=tuple(workers),
        load=load,
        find=lambda: planner.repair(
            fleet.owners,
            workers,
            redundant=rules.redundant,
            expert_bytes=rules.expert_bytes,
            load=load,
            strict=rules.strict,
        ),
    )


def drain(
    fleet: Fleet, rules: Rules, leaving: frozenset[str], *, spares: tuple[bool, ...]
) -> Question[Repair]:
    """How to empty those that leave.

    Args:
        spares: whether spares may take experts; what comes later is only tried if what comes
            before leaves something behind.
    """
    load = load_of(fleet)

    def find() -> Repair:
        for with_spares in spares:
            found = planner.drain(
                fleet.owners,
                workers_of(fleet, rules, spares=with_spares),
                leaving,
                redundant=rules.redundant,
                expert_bytes=rules.expert_bytes,
                load=load,
                strict=rules.strict,
            )
            if not leaving & owned(found.transition.owners).keys():
                break
        return found

    return Question(
        about="drain",
        owners=fleet.owners,
        workers=tuple(workers_of(fleet, rules)),
        load=load,
        more=(leaving, spares),
        find=find,
    )


def scale(fleet: Fleet, rules: Rules) -> Question[Scale | PlanError]:
    """Who is to leave when there are too many, and what becomes of their experts."""
    workers, load = workers_of(fleet, rules), load_of(fleet)

    def find() -> Scale | PlanError:
        try:
            return planner.scale(
                fleet.owners,
                load,
                workers,
                fleet.workers,
                redundant=rules.redundant,
                expert_bytes=rules.expert_bytes,
                strict=rules.strict,
            )
        except PlanError as error:
            return error

    return Question(
        about="scale",
        owners=fleet.owners,
        workers=tuple(workers),
        load=load,
        more=(fleet.workers,),
        find=find,
    )


def balance(fleet: Fleet, rules: Rules) -> Question[Rebalance]:
    """A better placement for the load of the last window."""
    workers, load = workers_of(fleet, rules), load_of(fleet)
    return Question(
        about="balance",
        owners=fleet.owners,
        workers=tuple(workers),
        load=load,
        find=lambda: planner.rebalance(
            fleet.owners,
            load,
            workers,
            redundant=rules.redundant,
            expert_bytes=rules.expert_bytes,
            hysteresis=rules.hysteresis,
            strict=rules.strict,
        ),
    )
