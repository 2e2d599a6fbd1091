"""Whether what somebody asks for can be done, told before anything is."""

from __future__ import annotations

from cluster import planner
from cluster.errors import ClusterError, PlanError
from cluster.fleet import Fleet, Phase, Role
from cluster.planners_view import load_of, workers_of
from cluster.rules import Rules
from cluster.signals import Ask, DrainAsked, ScaleAsked

_MOST = 4096


def permit(fleet: Fleet, event: Ask, rules: Rules) -> None:
    """Returns if it can be done as far as is known now.

    Raises:
        ClusterError: it cannot; says why.
    """
    if not fleet.begun:
        raise ClusterError("the fleet is still starting; ask again when it is ready")
    if isinstance(event, ScaleAsked):
        _permit_scale(fleet, event, rules)
    elif isinstance(event, DrainAsked):
        _permit_drain(fleet, event, rules)


def _permit_scale(fleet: Fleet, event: ScaleAsked, rules: Rules) -> None:
    if not 1 <= event.workers <= _MOST:
        raise ClusterError(f"there can be 1 to {_MOST} expert workers, not {event.workers}")
    ready = sum(m.phase is Phase.READY for m in fleet.serving)
    if event.workers < ready:
        planner.scale(
            fleet.owners,
            load_of(fleet),
            workers_of(fleet, rules),
            event.workers,
            redundant=rules.redundant,
            expert_bytes=rules.expert_bytes,
            strict=rules.strict,
        )


def _permit_drain(fleet: Fleet, event: DrainAsked, rules: Rules) -> None:
    experts, members = fleet.of(Role.EXPERT), fleet.members.values()
    known = {m.member_id for m in members} | {m.node for m in members if m.node}
    if unknown := sorted(event.names - known):
        raise PlanError(
            f"there is no expert worker, router or node {', '.join(unknown)}; "
            "`orrery status` lists them"
        )
    gone = {m.member_id for m in experts if {m.member_id, m.node} & event.names}
    if not any(m.member_id not in gone and not m.spare for m in experts):
        raise PlanError("the last expert workers cannot be drained: nobody would hold the experts")
    found = planner.drain(
        fleet.owners,
        workers_of(fleet, rules),
        gone,
        redundant=rules.redundant,
        expert_bytes=rules.expert_bytes,
        strict=rules.strict,
    )
    stuck = {
        worker
        for layer in found.transition.owners.values()
        for ids in layer
        for worker in ids
        if worker in gone
    }
    if stuck:
        raise PlanError(
            f"{', '.join(sorted(stuck))} cannot be drained: nobody else has room and the same bits"
        )
