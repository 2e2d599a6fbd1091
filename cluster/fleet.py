"""The fleet as values: what should run, what was seen of it, and the placement that follows."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.change import Change
from cluster.holdings import Experts, Owners, owned
from cluster.planner.crew import Loads
from cluster.thought import Thought
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
    epoch: the highest it has seen. term: the highest of a controller that it has heard.
    loaded, assigned: experts, while loading.
    held: what a worker holds; None of others.
    load: numbers for people, e.g. running requests.
    suspects: of a router: expert workers whose answers were wrong, to the pid of the process that
        gave them and why it was found out.
    """

    state: str
    epoch: Epoch = NO_EPOCH
    term: int = 0
    fingerprint: str = ""
    model_hash: str = ""
    dtype: str = ""
    device: str = ""
    error: str = ""
    loaded: int = 0
    assigned: int = 0
    held: Experts | None = None
    load: Mapping[str, int] = field(default_factory=dict)
    suspects: Mapping[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One process that should run.

    experts: what an expert worker holds; while it is not up, what it is to load at its start.
    spare: it stands by and holds nothing. leaving: it is emptied and then ended; a router is
        replaced first. resting: it is emptied, started anew, and `luggage` is what it takes up then
        if nobody stands in for it; of a router that leaves: it finishes what it has begun.
    doubted: a command to it failed, so that only its next report tells what it holds.
    misses: unanswered health checks in a row. failures: falls since it was last ready for a while.
    since: when it entered its phase; not_before: when it may start; seconds of the caller's clock.
    fingerprint: of its first report ever; strict exactness binds its successors to it.
    """

    member_id: str
    role: Role
    experts: Experts = field(default_factory=dict)
    spare: bool = False
    leaving: bool = False
    resting: bool = False
    luggage: Experts = field(default_factory=dict)
    doubted: bool = False
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

    owners: who serves which expert, or is to as soon as it is ready: layer -> expert -> worker ids.
    placement: the newest one: the owners that are ready.
    superseded: a controller of a higher term is at work; this one only watches.
    workers: how many should hold experts. spares: how many should stand by.
    routers: how many should take requests.
    number, router_number: of the newest expert worker and router; names are never used twice.
    begun: all have been up once; only then is anything published or moved.
    resumed: another controller had this fleet before.
    change: what is under way. changes: how many there were.
    tried: kind of plan -> the circumstances it was last made for; see `cluster.planning`.
    idle_until: no plan is made before, since one has just failed.
    load: of the last window that told something, float64 [layers, experts]; None: experts count as
        equal. weighed: it has not been looked at.
    thought: what the planner was asked last. waits: for its answer, before which nothing else is
        planned.
    restless: something has changed since planning last found nothing to do.
    restarts: members that are still to be started anew, in order.
    avoid: nodes where nothing is to be started.
    lost_since: since when some expert has had no owner.
    """

    members: Mapping[str, Member]
    owners: Owners
    placement: Placement
    superseded: bool = False
    workers: int = 0
    spares: int = 0
    routers: int = 0
    number: int = 0
    router_number: int = 0
    begun: bool = False
    resumed: bool = False
    change: Change | None = None
    changes: int = 0
    tried: Mapping[str, object] = field(default_factory=dict)
    idle_until: float = 0.0
    load: Loads | None = field(default=None, compare=False)
    weighed: bool = False
    thought: Thought | None = None
    waits: bool = False
    restless: bool = True
    restarts: tuple[str, ...] = ()
    avoid: frozenset[str] = frozenset()
    lost_since: float | None = None

    def of(self, role: Role) -> list[Member]:
        return [member for member in self.members.values() if member.role is role]

    @property
    def serving(self) -> list[Member]:
        """Expert workers that should hold experts and stay."""
        return [m for m in self.of(Role.EXPERT) if not m.spare and not m.leaving]

    @property
    def takers(self) -> list[Member]:
        """Routers that requests are to go to: those that stay, if any of them is ready."""
        ready = [m for m in self.of(Role.ROUTER) if m.phase is Phase.READY]
        return [m for m in ready if not m.leaving] or ready

    @property
    def served(self) -> bool:
        """Whether every expert has an owner, and as many routers as there should be are ready and
        know the placement."""
        informed = sum(
            member.phase is Phase.READY and epoch_of(member) == self.placement.epoch
            for member in self.of(Role.ROUTER)
        )
        return informed >= self.routers and all(
            ids for experts in self.placement.owners.values() for ids in experts
        )

    @property
    def settled(self) -> bool:
        """Whether, besides, every process that should run is ready. Nobody waits for a spare."""
        return self.served and all(m.phase is Phase.READY or m.spare for m in self.members.values())

    def put(self, *members: Member) -> Fleet:
        """With these in the place of those of their names, or new."""
        changed = {m.member_id: m for m in members if self.members.get(m.member_id) is not m}
        if not changed:
            return self
        return dataclasses.replace(self, members={**self.members, **changed})


def new_fleet(
    owners: Owners,
    workers: Sequence[str],
    routers: Sequence[str],
    term: int,
    spares: int = 0,
) -> Fleet:
    """A fleet of which nothing runs yet; each worker is to hold the experts it owns."""
    share = owned(owners)
    members = [
        Member(member_id=worker, role=Role.EXPERT, experts=share.get(worker, {}))
        for worker in workers
    ]
    members += [Member(member_id=router, role=Role.ROUTER) for router in routers]
    return Fleet(
        members={member.member_id: member for member in members},
        owners=owners,
        placement=no_placement(owners, term),
        workers=len(workers),
        spares=spares,
        number=len(workers) - 1,
        routers=len(routers),
        router_number=len(routers) - 1,
    )


def no_placement(owners: Owners, term: int) -> Placement:
    """What a controller of that term begins with: nobody owns anything."""
    return Placement(
        epoch=Epoch(term=term, counter=0),
        workers={},
        owners={layer: ((),) * len(experts) for layer, experts in owners.items()},
    )


def epoch_of(member: Member) -> Epoch:
    return member.report.epoch if member.report else NO_EPOCH


def placement_of(fleet: Fleet) -> Placement:
    """What routers should dispatch by now: ready workers and what they own, one counter up if
    that is new."""
    holding = {w for experts in fleet.owners.values() for ids in experts for w in ids}
    workers = {
        m.member_id: WorkerAddress(
            worker_id=m.member_id, address=m.address, fingerprint=m.fingerprint, node=m.node
        )
        for m in fleet.of(Role.EXPERT)
        if m.phase is Phase.READY and m.member_id in holding
    }
    owners = {
        layer: tuple(
            ids if workers.keys() >= set(ids) else tuple(w for w in ids if w in workers)
            for ids in experts
        )
        for layer, experts in fleet.owners.items()
    }
    known = fleet.placement
    if workers == known.workers and owners == known.owners:
        return known
    epoch = Epoch(term=known.epoch.term, counter=known.epoch.counter + 1)
    return Placement(epoch=epoch, workers=workers, owners=owners)
