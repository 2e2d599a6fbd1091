"""What can happen to a fleet, and what can be done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cluster.fleet import Member, Report
from cluster.holdings import Experts
from cluster.planner.crew import Loads
from cluster.thought import Question
from wire.placement import Epoch, Placement

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
class Absent:
    """A former controller's process is not there any more; the one that is started is new."""

    member_id: str


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


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A worker holds what it was to load. change: the number of the change that asked for it."""

    member_id: str
    experts: Experts
    change: int


@dataclass(frozen=True, kw_only=True)
class Evicted:
    """A worker dropped what it was to drop."""

    member_id: str
    experts: Experts
    change: int


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A worker did not load or drop what it was to."""

    member_id: str
    change: int
    error: str


@dataclass(frozen=True, kw_only=True)
class Drained:
    """A router has finished what it had begun, or was given all the time there is."""

    member_id: str


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """What experts had to do in the last window; float64 [layers, experts], tokens."""

    load: Loads = field(compare=False)


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Ray says that these nodes are about to leave."""

    leaving: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The planner has found the answer to a question."""

    question: Question[Any]
    answer: Any


@dataclass(frozen=True, kw_only=True)
class Overtaken:
    """The journal has given a higher term to another controller."""


@dataclass(frozen=True, kw_only=True)
class ScaleAsked:
    """workers: that should hold experts. by: who asks."""

    workers: int
    by: str


@dataclass(frozen=True, kw_only=True)
class DrainAsked:
    """names: of expert workers that are to be emptied and ended, of routers that others are to
    take over from, or of nodes with either."""

    names: frozenset[str]
    by: str


@dataclass(frozen=True, kw_only=True)
class RestartAsked:
    """Every expert worker and router is to be started anew, one after the other."""

    by: str


MemberEvent: TypeAlias = Absent | Launched | Seen | Missed | Died | Drained
StepEvent: TypeAlias = Loaded | Evicted | Failed
Ask: TypeAlias = ScaleAsked | DrainAsked | RestartAsked
News: TypeAlias = Tick | MemberEvent | StepEvent | Weighed | Nodes | Ask | Answered
Event: TypeAlias = News | Overtaken

# What to do.


@dataclass(frozen=True, kw_only=True)
class Launch:
    """avoid: nodes that it must not be on. polite: nobody waits for it, so it is to leave the
    processors to those that serve."""

    member: Member
    avoid: frozenset[str] = frozenset()
    polite: bool = False


@dataclass(frozen=True, kw_only=True)
class Kill:
    member_id: str


@dataclass(frozen=True, kw_only=True)
class DrainRouter:
    """It is to take nothing new and to finish what it has begun."""

    router: Member


@dataclass(frozen=True, kw_only=True)
class Publish:
    router: Member
    placement: Placement


@dataclass(frozen=True, kw_only=True)
class LoadExperts:
    worker: Member
    experts: Experts
    epoch: Epoch
    change: int


@dataclass(frozen=True, kw_only=True)
class EvictExperts:
    worker: Member
    experts: Experts
    epoch: Epoch
    change: int


@dataclass(frozen=True, kw_only=True)
class Ponder:
    """The planner is to find an answer, unless another question has followed."""

    question: Question[Any]


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that people may want to know of: one line of `orrery events`.

    kind: a word of `cluster.events.KINDS`.
    subject: a member, a node, or empty.
    seconds: how long it took, where it has a duration.
    facts: numbers and words besides.
    """

    kind: str
    text: str
    subject: str = ""
    seconds: float | None = None
    facts: Mapping[str, int | float | str] = field(default_factory=dict)


Action: TypeAlias = (
    Launch | Kill | DrainRouter | Publish | LoadExperts | EvictExperts | Ponder | Note
)
