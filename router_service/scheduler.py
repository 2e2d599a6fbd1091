"""Decides which tokens are computed next. No clock of its own, no model, no I/O."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Mapping

from router_service.config import EngineConfig
from router_service.kv_cache import KVCache
from router_service.prompt_budget import PromptBudget
from router_service.sequence import Sequence
from router_service.step_plan import PlannedSegment, StepPlan
from wire.errors import OverloadedError


class Scheduler:
    """Continuous batching with chunked prefill, preemption and several micro-batches in flight.

    A sequence waits (no blocks), runs (has blocks) or is finished; a running one may be in flight
    in at most one micro-batch, and one that misses an expert is parked, with or without its
    blocks. Everything is ordered by arrival: the oldest get blocks first, the youngest give theirs
    up.
    """

    def __init__(self, config: EngineConfig, kv: KVCache) -> None:
        self._config = config
        self._kv = kv
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._parked: list[Sequence] = []
        self._steps = 0
        self.preemptions = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def parked(self) -> tuple[Sequence, ...]:
        return tuple(self._parked)

    @property
    def sequences(self) -> list[Sequence]:
        """Every sequence that is not finished, or is finished but still in flight."""
        without_blocks = [seq for seq in self._parked if seq not in self._running]
        return [*self._running, *without_blocks, *self._waiting]

    def add(self, seq: Sequence) -> None:
        """Queues a new sequence.

        Raises:
            OverloadedError: as many as the limits allow are running and waiting already.
        """
        limit = self._config.max_running + self._config.max_waiting
        if len(self.sequences) >= limit:
            raise OverloadedError(
                f"this router has {limit} requests running or waiting and takes no more; "
                "try again later"
            )
        self._enqueue(seq)

    def schedule(self) -> StepPlan | None:
        """The next micro-batch, its sequences marked in flight; None: nothing is ready.

        Decoding sequences first, no more of them than leaves the other micro-batches their share;
        then prompt chunks of running sequences, then of newly admitted ones, up to the budgets.
        """
        self._steps += 1
        segments: list[PlannedSegment] = []
        for seq in self._decoding():
            self._plan(segments, seq, 1)
        budget = PromptBudget.of(self._config)
        prefilling = self._prefilling()
        for number, seq in enumerate(prefilling, start=1):
            if budget.spent:
                break
            others = number < len(prefilling) or bool(self._waiting)
            self._plan(segments, seq, budget.chunk(seq, others=others))
        while not budget.spent and (admitted := self._admit()) is not None:
            self._plan(segments, admitted, budget.chunk(admitted, others=bool(self._waiting)))
        return StepPlan(segments=tuple(segments)) if segments else None

    def settle(
        self,
        plan: StepPlan,
        missing: Mapping[int, tuple[int, int]],
        now: float,
        broken: Collection[int] = (),
    ) -> list[PlannedSegment]:
        """Takes a micro-batch back; returns the segments from which a token follows.

        Rows from a sequence's first missing one on are void: it is parked and starts there again.
        Nothing counts as computed of a segment with a broken row; the caller ends its sequence.

        Args:
            missing, broken: as in `ForwardResult`.
        """
        sampling: list[PlannedSegment] = []
        for planned in plan.segments:
            seq = planned.sequence
            seq.in_flight = False
            spoilt = not planned.intact(broken)
            if spoilt:
                self._kv.taint(planned.written)
            if seq.finished:
                self._leave(seq)
            if seq.finished or spoilt:
                continue
            rows = planned.row_numbers
            void = next((row for row in rows if row in missing), None) if missing else None
            valid = planned.length if void is None else void - planned.start
            seq.computed = planned.position + valid
            self._kv.publish(seq)
            if valid:
                seq.parked_at = None
            if void is not None:
                self._park(seq, missing[void], now)
            elif planned.samples:
                sampling.append(planned)
        return sampling

    def abandon(self, plan: StepPlan) -> None:
        """Takes a failed micro-batch back; nothing of it counts as computed."""
        for planned in plan.segments:
            planned.sequence.in_flight = False
            # Nobody has looked at what it wrote.
            self._kv.taint(planned.written)
            if planned.sequence.finished:
                self._leave(planned.sequence)

    def finish(self, seq: Sequence) -> None:
        """Ends a sequence; the blocks of one in flight are taken back when it lands."""
        seq.finished = True
        if not seq.in_flight:
            self._leave(seq)

    def resume(self, is_live: Callable[[int, int], bool]) -> int:
        """Lets parked sequences go on whose expert has a live copy again; returns how many."""
        back = [seq for seq in self._parked if seq.missing and is_live(*seq.missing)]
        for seq in back:
            self._unpark(seq)
            if not seq.block_table:
                self._enqueue(seq)
        return len(back)

    def violations(self) -> list[str]:
        """Sequences and blocks that do not fit together; empty when all is well."""
        found = self._kv.violations(self._running)
        found += [
            f"{seq.request.request_id} waits with blocks"
            for seq in self._waiting
            if seq.block_table
        ]
        return found

    def _decoding(self) -> list[Sequence]:
        active = [seq for seq in self._running if seq.decoding and not seq.parked]
        share = max(self._config.min_micro_rows, -(-len(active) // self._config.micro_batches))
        ready = [seq for seq in active if not seq.in_flight]
        ready.sort(key=lambda seq: (seq.last_step, seq.number))
        chosen: list[Sequence] = []
        for seq in ready:
            if len(chosen) == share:
                break
            # An earlier one in this loop may have taken this one's blocks.
            if seq.block_table and self._make_room(seq):
                seq.in_flight = True
                chosen.append(seq)
        return chosen

    def _prefilling(self) -> list[Sequence]:
        return [seq for seq in self._running if not (seq.decoding or seq.in_flight or seq.parked)]

    def _plan(self, segments: list[PlannedSegment], seq: Sequence, length: int) -> None:
        seq.in_flight = True
        seq.last_step = self._steps
        segments.append(
            PlannedSegment(
                sequence=seq,
                start=segments[-1].last_row + 1 if segments else 0,
                position=seq.computed,
                length=length,
                samples=length == seq.uncomputed,
            )
        )

    def _admit(self) -> Sequence | None:
        active = sum(not seq.parked for seq in self._running)
        if not self._waiting or active >= self._config.max_running:
            return None
        seq = self._waiting[0]
        # One spare block, so that the newcomer is not preempted by the very next token.
        while not self._kv.admit(seq, reserve=1 if active else 0):
            idle = [other for other in self._running if other.parked]
            if not idle:
                return None
            self._preempt(idle[-1])
        del self._waiting[0]
        bisect.insort(self._running, seq, key=_age)
        if seq.cached_tokens is None:
            seq.cached_tokens = min(seq.computed, seq.prompt_length)
        return seq

    def _make_room(self, seq: Sequence) -> bool:
        """Gets a block for the next token, taken from the parked or the youngest if need be."""
        while not self._kv.grow(seq):
            idle = [other for other in self._running if not other.in_flight]
            victim = max(idle, key=lambda other: (other.parked, other.number))
            if victim is seq and self._running[-1] is not seq:
                # Younger ones are in flight: their blocks can be had once they land.
                return False
            self._preempt(victim)
            if victim is seq:
                return False
        return True

    def _preempt(self, seq: Sequence) -> None:
        self.preemptions += 1
        self._kv.release(seq)
        self._running.remove(seq)
        if not seq.parked:
            self._enqueue(seq)

    def _enqueue(self, seq: Sequence) -> None:
        bisect.insort(self._waiting, seq, key=_age)

    def _park(self, seq: Sequence, missing: tuple[int, int], now: float) -> None:
        seq.missing = missing
        if seq.parked_at is None:
            seq.parked_at = now
        self._parked.append(seq)

    def _unpark(self, seq: Sequence) -> None:
        seq.missing = None
        self._parked.remove(seq)

    def _leave(self, seq: Sequence) -> None:
        if seq.parked:
            self._unpark(seq)
        if seq in self._running:
            self._running.remove(seq)
            self._kv.release(seq)
        elif seq in self._waiting:
            self._waiting.remove(seq)


def _age(seq: Sequence) -> int:
    return seq.number
