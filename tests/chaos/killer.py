"""Ends workers with SIGKILL, but never one that holds the last live copy of an expert."""

from __future__ import annotations

import random
import time
from itertools import combinations
from typing import Any

import httpx

from tests.chaos.fleet import Fleet, Row
from tests.chaos.nodes import kill
from tests.support.deadline import wait_until

Holding = set[tuple[str, int]]

_LOOK_S = 0.1
_PAGE_S = 10.0


class Killer:
    """Seeded. Waits where nobody may be killed; `moments` of its kills on `time.perf_counter`."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self._fleet = fleet
        self._draw = random.Random(seed)
        self._http = httpx.Client(timeout=_PAGE_S, trust_env=False)
        self.moments: list[float] = []
        self.waited_s = 0.0

    def expendable(self) -> list[Row]:
        """Workers of which every expert has another live copy that the routers use."""
        alive = self._alive()
        return [
            row
            for row, mine in alive
            if mine <= set().union(*(held for other, held in alive if other is not row))
        ]

    def needed(self) -> Row:
        """A worker with the last live copy of some expert."""
        wait_until(lambda: len(self._alive()) > 1, "two workers that the routers use")
        spared = [row["id"] for row in self.expendable()]
        return next(row for row, _ in self._alive() if row["id"] not in spared)

    def partners(self) -> tuple[Row, Row]:
        """Two workers that together hold both copies of more experts than any other two."""
        wait_until(lambda: len(self._alive()) > 1, "two workers that the routers use")
        alive = self._alive()
        return max(
            combinations((row for row, _ in alive), 2),
            key=lambda pair: len(set.intersection(*(held for row, held in alive if row in pair))),
        )

    def _alive(self) -> list[tuple[Row, Holding]]:
        """Workers that hold something and that the routers use, by what they hold."""
        status = self._fleet.status()
        rows = {p["id"]: p for p in status["processes"]}
        placement = self._page(rows["controller"]["address"], "placement")
        routers = [p for p in status["processes"] if p["role"] == "router"]
        if any(p["epoch"] != placement["epoch"] for p in routers):
            return []
        seen = [self._page(p["metrics_address"], "debug/experts")["workers"] for p in routers]
        return [
            (rows[worker], held)
            for worker, about in sorted(placement["workers"].items())
            if rows.get(worker, {}).get("state") == "ready"
            and all(workers.get(worker, {}).get("usable") for workers in seen)
            and (held := _holding(about["experts"]))
        ]

    def choose(self, seconds: float = 90.0) -> Row:
        """One of those, as soon as there is one."""
        begun = time.monotonic()
        while not (victims := self.expendable()):
            if time.monotonic() - begun > seconds:
                raise TimeoutError(f"nobody could be spared for {seconds:g} s")
            time.sleep(_LOOK_S)
        self.waited_s += time.monotonic() - begun
        return self._draw.choice(victims)

    def strike(self) -> Row:
        """Kills one, and says which."""
        victim = self.choose()
        self.moments.append(time.perf_counter())
        kill(victim["pid"])
        return victim

    def __enter__(self) -> Killer:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def _page(self, address: str, name: str) -> dict[str, Any]:
        page: dict[str, Any] = self._http.get(f"http://{address}/{name}").raise_for_status().json()
        return page


def _holding(experts: dict[str, str]) -> Holding:
    """From the controller's placement page: layer to ranges such as `0-95,98`."""
    held: Holding = set()
    for layer, spec in experts.items():
        for part in filter(None, spec.split(",")):
            first, _, last = part.partition("-")
            held |= {(layer, expert) for expert in range(int(first), int(last or first) + 1)}
    return held
