"""What the controller's mind asks the planner, as values.

A plan for a large fleet takes a second of processor time, in which the controller should hear
everybody. So the mind asks, somebody else works it out, and the mind asks again: only if it then
asks the same is the answer taken, else the fleet has changed and so must the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from cluster.holdings import Owners
from cluster.planner import WorkerState
from cluster.planner.crew import Loads

Found_co = TypeVar("Found_co", covariant=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Question(Generic[Found_co]):
    """Everything that the answer depends on, and the way to it.

    about, owners, workers, load, more: two questions that agree in these have the same answer.
    find: works it out: pure, so any thread may.
    """

    about: str
    owners: Owners
    workers: tuple[WorkerState, ...]
    load: Loads
    more: tuple[object, ...] = ()
    find: Callable[[], Found_co]

    def same(self, other: Question[Any]) -> bool:
        return (
            (self.about, self.more, self.workers) == (other.about, other.more, other.workers)
            and (self.owners is other.owners or self.owners == other.owners)
            and np.array_equal(self.load, other.load)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Thought:
    """The last question. answer: None while it is being worked out."""

    question: Question[Any]
    answer: Any = None
