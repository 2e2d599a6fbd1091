"""An executor of transitions that only keeps books, and complains where a real one would suffer."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.planner import Drain, Evict, Load, Publish, Transition, WorkerState
from cluster.planner.crew import Owners

Pair = tuple[int, int]


class Rehearsal:
    """Who holds what while the steps of a transition are carried out.

    fewest: expert -> the smallest number of published owners that it had on the way.
    """

    def __init__(self, owners: Owners, workers: Sequence[WorkerState], expert_bytes: int) -> None:
        self._workers = {state.spec.worker_id: state for state in workers}
        self._bytes = expert_bytes
        self.held: dict[str, set[Pair]] = {
            name: {
                (layer, expert)
                for layer, experts in owners.items()
                for expert, ids in enumerate(experts)
                if name in ids
            }
            for name, state in self._workers.items()
            if state.live
        }
        self.published = {
            (layer, expert): {name for name in ids if name in self.held}
            for layer, experts in owners.items()
            for expert, ids in enumerate(experts)
        }
        self.fewest = {pair: len(ids) for pair, ids in self.published.items()}
        self._drained: set[tuple[str, Pair]] = set()

    def play(self, transition: Transition) -> None:
        for step in transition.steps:
            if isinstance(step, Publish):
                self._publish(step.owners)
                continue
            pairs = {(layer, e) for layer, experts in step.experts.items() for e in experts}
            assert pairs, "a step that does nothing"
            held = self.held[step.worker_id]
            if isinstance(step, Load):
                assert not pairs & held, "loaded twice"
                held |= pairs
                memory = self._workers[step.worker_id].spec.memory_bytes
                assert memory is None or len(held) * self._bytes <= memory, "memory exceeded"
            elif isinstance(step, Drain):
                assert not any(step.worker_id in self.published[pair] for pair in pairs)
                self._drained |= {(step.worker_id, pair) for pair in pairs}
            else:
                assert isinstance(step, Evict)
                assert {(step.worker_id, pair) for pair in pairs} <= self._drained
                assert pairs <= held
                held -= pairs
        wish = _by_pair(transition.owners)
        for pair, ids in self.published.items():
            assert ids == {name for name in wish[pair] if name in self.held}, "ends elsewhere"

    def _publish(self, owners: Owners) -> None:
        self.published = _by_pair(owners)
        for pair, ids in self.published.items():
            assert all(pair in self.held[name] for name in ids), "published before it is loaded"
            self.fewest[pair] = min(self.fewest[pair], len(ids))


def _by_pair(owners: Owners) -> dict[Pair, set[str]]:
    return {
        (layer, expert): set(ids)
        for layer, experts in owners.items()
        for expert, ids in enumerate(experts)
    }
