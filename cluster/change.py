"""A change of the placement that is under way, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.holdings import Experts, Owners
from cluster.planner import Drain, Evict, Load, Step


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is left of a transition, and how far its first steps have come.

    number: tells its actions from those of others.
    reason: repair | drain | scale | tidy | balance.
    cause: for people.
    steps: what is to be done, the first ones now.
    owners: what the placement comes to.
    asked: steps among `steps` that a worker is at.
    since: when it was begun; seconds of the caller's clock.
    quiet_since: when the last router was seen with the placement that drains wait for.
    copies: that it loads.
    """

    number: int
    reason: str
    cause: str
    steps: tuple[Step, ...]
    owners: Owners
    since: float
    asked: frozenset[int] = frozenset()
    quiet_since: float | None = None
    copies: int = 0

    @property
    def wave(self) -> tuple[Step, ...]:
        """The steps that may be carried out at once: those of one kind at the beginning."""
        first = type(self.steps[0])
        return self.steps[
            : next(
                (n for n, step in enumerate(self.steps) if type(step) is not first), len(self.steps)
            )
        ]

    @property
    def workers(self) -> frozenset[str]:
        """Everyone who has something to load, to drain or to evict."""
        return frozenset(s.worker_id for s in self.steps if isinstance(s, Load | Drain | Evict))

    def without(self, worker_id: str, experts: Experts) -> Change:
        """After that load or eviction."""
        place = next(
            (
                place
                for place, step in enumerate(self.wave)
                if isinstance(step, Load | Evict)
                and step.worker_id == worker_id
                and step.experts == experts
            ),
            None,
        )
        if place is None:
            return self
        return dataclasses.replace(
            self,
            steps=self.steps[:place] + self.steps[place + 1 :],
            asked=frozenset(n - (n > place) for n in self.asked if n != place),
        )


def in_pieces(steps: Sequence[Step], experts: int | None) -> tuple[Step, ...]:
    """The steps with loads of no more than so many experts each, but whole layers where they fit.

    >>> in_pieces([Load(worker_id="a", experts={1: (0, 1, 2), 2: (0,)})], 2)
    ... # doctest: +NORMALIZE_WHITESPACE
    (Load(worker_id='a', experts={1: (0, 1)}), Load(worker_id='a', experts={1: (2,), 2: (0,)}))
    """
    if experts is None:
        return tuple(steps)
    cut: list[Step] = []
    for step in steps:
        if not isinstance(step, Load):
            cut.append(step)
            continue
        pairs = [(layer, e) for layer, ids in step.experts.items() for e in ids]
        for start in range(0, len(pairs), experts):
            piece: dict[int, tuple[int, ...]] = {}
            for layer, expert in pairs[start : start + experts]:
                piece[layer] = (*piece.get(layer, ()), expert)
            cut.append(Load(worker_id=step.worker_id, experts=piece))
    return tuple(cut)
