"""The fleet as values: what should run, what was seen of it, and the placement that follows."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wire.placement import Epoch, Placement, WorkerAddress

NO_EPOCH = Epoch(term=0, counter=0)


class Role(enum.StrEnum):
    ROUTER = "router"
    EXPERT = "expert"


class Phase(enum.StrEnum):
    """pending: to be started; starting: its process comes up; down: gave up for good."""

    PENDING = "pending"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a process said of itself in answer to Describe.

    state: loading | ready | draining | failed.
    epoch: the highest it has seen.
    loaded, assigned: experts, while loading.
    load: numbers for people, e.g. running requests.
    """

    state: str
    epoch: Epoch = NO_EPOCH
    fingerprint: str = ""
    model_hash: str = ""
    dtype: str = ""
    device: str = ""
    error: str = ""
    loaded: int = 0
    assigned: int = 0
    load: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One process that should run.

    experts: layer -> logical experts that an expert worker should hold.
    misses: unanswered health checks in a row. failures: falls since it was last ready for a while.
    since: when it entered its phase; not_before: when it may start; seconds of the caller's clock.
    fingerprint: of its first report ever; strict exactness binds its successors to it.
    """

    member_id: str
    role: Role
    experts: Mapping[int, Sequence[int]] = field(default_factory=dict)
    phase: Phase = Phase.PENDING
    address: str = ""
    metrics_address: str = ""
    node: str = ""
    pid: int = 0
    fingerprint: str = ""
    report: Report | None = None
    misses: int = 0
    failures: int = 0
    restarts: int = 0
    since: float = 0.0
    not_before: float = 0.0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Everything the controller knows; `cluster.reconcile` moves it on.

    owners: the planner's wish: layer -> logical expert -> worker ids.
    placement: the newest one: the wish, as far as its workers are ready.
    superseded: a controller of a higher term is at work; this one only watches.
    """

    members: Mapping[str, Member]
    owners: Mapping[int, tuple[tuple[str, ...], ...]]
    placement: Placement
    superseded: bool = False

    def of(self, role: Role) -> list[Member]:
        return [member for member in self.members.values() if member.role is role]

    @property
    def served(self) -> bool:
        """Whether every expert has an owner, and every router is ready and knows the placement."""
        return all(ids for experts in self.placement.owners.values() for ids in experts) and all(
            member.phase is Phase.READY and epoch_of(member) == self.placement.epoch
            for member in self.of(Role.ROUTER)
        )

    @property
    def settled(self) -> bool:
        """Whether, besides, every process that should run is ready."""
        return self.served and all(m.phase is Phase.READY for m in self.members.values())


def new_fleet(
    owners: Mapping[int, tuple[tuple[str, ...], ...]],
    workers: Sequence[str],
    routers: Sequence[str],
    term: int,
) -> Fleet:
    """A fleet of which nothing runs yet; each worker is to hold the experts it owns."""
    empty = Placement(
        epoch=Epoch(term=term, counter=0),
        workers={},
        owners={layer: ((),) * len(experts) for layer, experts in owners.items()},
    )
    members = [
        Member(
            member_id=worker,
            role=Role.EXPERT,
            experts={
                layer: held
                for layer, experts in owners.items()
                if (held := tuple(e for e, ids in enumerate(experts) if worker in ids))
            },
        )
        for worker in workers
    ]
    members += [Member(member_id=router, role=Role.ROUTER) for router in routers]
    return Fleet(
        members={member.member_id: member for member in members}, owners=owners, placement=empty
    )


def epoch_of(member: Member) -> Epoch:
    return member.report.epoch if member.report else NO_EPOCH


def placement_of(fleet: Fleet) -> Placement:
    """What routers should dispatch by now: ready workers only, one counter up if that is new."""
    ready = {m.member_id: m for m in fleet.of(Role.EXPERT) if m.phase is Phase.READY}
    workers = {
        member_id: WorkerAddress(
            worker_id=member_id,
            address=member.address,
            fingerprint=member.fingerprint,
            node=member.node,
        )
        for member_id, member in ready.items()
    }
    if workers == fleet.placement.workers:
        return fleet.placement
    epoch = fleet.placement.epoch
    return Placement(
        epoch=Epoch(term=epoch.term, counter=epoch.counter + 1),
        workers=workers,
        owners={
            layer: tuple(tuple(w for w in ids if w in workers) for ids in experts)
            for layer, experts in fleet.owners.items()
        },
    )
