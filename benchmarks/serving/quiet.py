"""What else the machine does while a side is measured.

An engine of two threads and one of six processes lose differently to a busy neighbour, so ratios
are only worth something on a machine that does nothing else.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from time import perf_counter

import psutil

_LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """others: share of all cores that other processes may take; above it a run is made again.

    wait_s: longest wait for that before a run. tries: runs at most; the quietest counts.
    """

    others: float = 0.1
    wait_s: float = 0.0
    tries: int = 1


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Processor seconds spent so far, by everybody and by this process and what it started."""

    at_s: float
    all_s: float
    own_s: float

    @classmethod
    def now(cls) -> Moment:
        times = psutil.cpu_times()
        own = 0.0
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                spent = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            own += spent.user + spent.system
        busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
        return cls(at_s=perf_counter(), all_s=busy, own_s=own)

    def own_since(self) -> float:
        """Processor seconds that this process and what it started took from then to now."""
        return Moment.now().own_s - self.own_s

    def others_since(self) -> float:
        """Share of all cores that others took from then to now."""
        now = Moment.now()
        room = (now.at_s - self.at_s) * (os.cpu_count() or 1)
        return max(0.0, (now.all_s - self.all_s - (now.own_s - self.own_s)) / room)


async def until_quiet(quiet: Quiet) -> None:
    """Returns once others take little, or after the longest wait."""
    end = perf_counter() + quiet.wait_s
    while perf_counter() < end:
        before = Moment.now()
        await asyncio.sleep(_LOOK_S)
        if before.others_since() <= quiet.others:
            return
