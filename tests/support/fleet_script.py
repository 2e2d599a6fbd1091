"""A fleet and a clock for tests of the controller's mind: events in, actions out, in short."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.fleet import Fleet, Phase, Report, Role, new_fleet
from cluster.holdings import Experts, Owners
from cluster.reconcile import advance
from cluster.rules import Rules
from cluster.signals import (
    Action,
    Answered,
    Drained,
    DrainRouter,
    Event,
    Evicted,
    EvictExperts,
    Kill,
    Launch,
    Launched,
    Loaded,
    LoadExperts,
    Note,
    Ponder,
    Publish,
    Seen,
    Tick,
)
from cluster.views import ranges

OWNERS: Owners = {1: (("expert-0",), ("expert-0",), ("expert-1",), ("expert-1",))}
FOUR: Owners = {1: tuple((f"expert-{e // 2}",) for e in range(8))}
RULES = Rules(misses=3, start_timeout_s=60, drain_s=0.5)


class Script:
    """`do` advances the fleet and says what is to be done; notes go to `notes`."""

    def __init__(
        self,
        rules: Rules = RULES,
        *,
        owners: Owners = OWNERS,
        workers: int = 2,
        spares: int = 0,
        fleet: Fleet | None = None,
    ) -> None:
        names = [f"expert-{n}" for n in range(workers)]
        self.fleet = fleet or new_fleet(owners, names, ["router-0"], 7, spares)
        self.rules = rules
        self.now = 100.0
        self.notes: list[Note] = []
        self.pending: list[LoadExperts | EvictExperts] = []
        self.launches: list[Launch] = []
        self.draining: list[str] = []

    def do(self, event: Event) -> list[str]:
        """The planner answers at once."""
        self.fleet, actions = advance(self.fleet, event, self.now, self.rules)
        asked = [a.question for a in actions if isinstance(a, Ponder)]
        actions = tuple(a for a in actions if not isinstance(a, Ponder))
        told = self._carry_out(actions)
        for question in asked:
            told += self.do(Answered(question=question, answer=question.find()))
        return told

    def _carry_out(self, actions: tuple[Action, ...]) -> list[str]:
        self.notes += [a for a in actions if isinstance(a, Note)]
        self.draining += [a.router.member_id for a in actions if isinstance(a, DrainRouter)]
        self.launches += [a for a in actions if isinstance(a, Launch)]
        self.pending += [a for a in actions if isinstance(a, LoadExperts | EvictExperts)]
        return [short(action) for action in actions if not isinstance(action, Note)]

    def tick(self, seconds: float = 0.0) -> list[str]:
        self.now += seconds
        return self.do(Tick())

    def launched(self, member_id: str, port: int, node: str = "n") -> list[str]:
        return self.do(
            Launched(
                member_id=member_id,
                address=f"h:{port}",
                metrics_address=f"h:{port + 1}",
                node=node,
                pid=port,
            )
        )

    def seen(self, member_id: str, state: str = "ready", **report: object) -> list[str]:
        known = {"fingerprint": "f", "epoch": self.fleet.placement.epoch} | report
        if member_id.startswith("expert"):
            known.pop("epoch")
        return self.do(Seen(member_id=member_id, report=Report(state=state, **known)))  # type: ignore[arg-type]

    def comes_up(self, member_id: str, port: int, node: str = "n") -> list[str]:
        """Launched and at once ready."""
        return [*self.launched(member_id, port, node), *self.seen(member_id)]

    def answer(self) -> list[str]:
        """Workers do what they were told."""
        told: list[str] = []
        drained, self.draining = self.draining, []
        for router in drained:
            told += self.do(Drained(member_id=router))
        commands, self.pending = self.pending, []
        for command in commands:
            event = Loaded if isinstance(command, LoadExperts) else Evicted
            told += self.do(
                event(
                    member_id=command.worker.member_id,
                    experts=command.experts,
                    change=command.change,
                )
            )
        return told

    def bring_up(self, nodes: Mapping[str, str] | None = None) -> None:
        """Every member ready, and every router with the placement."""
        self.tick()
        for port, (name, member) in enumerate(self.fleet.members.items()):
            if member.phase is Phase.STARTING:
                self.launched(name, port, (nodes or {}).get(name, "n"))
        for name, member in self.fleet.members.items():
            if member.role is Role.EXPERT and member.phase is Phase.LOADING:
                self.seen(name)
        self.seen("router-0")
        self.tick()

    def run(self, seconds: float = 30.0) -> list[str]:
        """Lets everybody do what they are told until nothing is left to do."""
        told: list[str] = []
        port = 1000 + int(self.now)
        end = self.now + seconds
        while self.now < end:
            told += self.tick(0.25)
            told += self.answer()
            for name, member in list(self.fleet.members.items()):
                if name not in self.fleet.members:
                    continue
                if member.phase is Phase.STARTING:
                    port += 2
                    told += self.launched(name, port)
                elif member.phase in (Phase.LOADING, Phase.READY):
                    told += self.seen(name)
        return told

    @property
    def holds(self) -> dict[str, str]:
        """Worker to what it holds."""
        return {m.member_id: short_experts(m.experts) for m in self.fleet.of(Role.EXPERT)}

    @property
    def kinds(self) -> list[str]:
        return [note.kind for note in self.notes]


def four(**more: object) -> Script:
    """Four workers at rest, with two of eight experts each."""
    script = Script(owners=FOUR, workers=4, **more)  # type: ignore[arg-type]
    script.bring_up()
    script.run(10)
    script.notes.clear()
    return script


def short(action: Action) -> str:
    if isinstance(action, Launch):
        return f"launch {action.member.member_id}"
    if isinstance(action, Kill):
        return f"kill {action.member_id}"
    if isinstance(action, DrainRouter):
        return f"drain {action.router.member_id}"
    if isinstance(action, LoadExperts | EvictExperts):
        verb = "load" if isinstance(action, LoadExperts) else "evict"
        return f"{action.worker.member_id} {verb} {short_experts(action.experts)}"
    assert isinstance(action, Publish)
    epoch = action.placement.epoch
    return (
        f"publish {epoch.term}.{epoch.counter} to {action.router.member_id}: "
        f"{' '.join(action.placement.workers)}"
    )


def short_experts(experts: Experts) -> str:
    return " ".join(f"{layer}:{ranges(ids)}" for layer, ids in experts.items())
