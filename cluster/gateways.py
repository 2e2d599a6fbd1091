"""The gateway replicas that the controller has heard from.

Serve starts and ends them, so nobody tells the controller; but each asks it for routers all the
time, and says who it is when it asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.members.setup import reachable
from cluster.views import Process

_FORGET_S = 15.0


@dataclass(eq=False)
class Gateways:
    """address: the one HTTP address that all replicas stand behind."""

    address: str
    _known: dict[tuple[str, int], tuple[Process, float]] = field(default_factory=dict)

    def heard(self, about: Mapping[str, Any], now: float) -> None:
        """A replica asked; `about` holds its node, host, pid and metrics_address."""
        key = (str(about["node"]), int(about["pid"]))
        known = self._known.get(key)
        process = Process(
            process_id=known[0].process_id if known else self._free_name(now),
            role="gateway",
            node=key[0],
            pid=key[1],
            address=self.address,
            metrics_address=reachable(str(about["metrics_address"]), str(about["host"])),
            state="ready",
        )
        self._known[key] = (process, now)

    def living(self, now: float) -> list[Process]:
        """Those that asked a short while ago, by name."""
        alive = [process for process, heard in self._known.values() if now - heard < _FORGET_S]
        return sorted(alive, key=lambda process: process.process_id)

    def _free_name(self, now: float) -> str:
        self._known = {k: v for k, v in self._known.items() if now - v[1] < _FORGET_S}
        names = {process.process_id for process, _ in self._known.values()}
        return next(name for n in range(len(names) + 1) if (name := f"gateway-{n}") not in names)
