"""What the controller needs of the world: processes that it starts, and lines to them."""

from __future__ import annotations

from typing import Protocol

from cluster.fleet import Member, Report
from cluster.holdings import Experts
from cluster.loads import Tokens
from cluster.signals import Launched
from wire.placement import Epoch, Placement


class Actors(Protocol):
    """Starts and ends the processes of members."""

    async def launch(self, member: Member, avoid: frozenset[str], polite: bool) -> Launched:
        """Starts the member, or finds the one that a former controller started.

        Args:
            avoid: nodes that it must not be started on.
            polite: it is to leave the processors to others until it is ready.

        Raises:
            StartError: it did not come up.
        """
        ...

    async def kill(self, member_id: str) -> None:
        """Ends it; one that is gone already is no error."""
        ...

    async def present(self, member_id: str) -> bool:
        """Whether a former controller's process of that name is there, or seems to be."""
        ...

    async def alive(self, member_id: str) -> bool:
        """False when it is known to be gone."""
        ...

    async def leaving_nodes(self) -> frozenset[str]:
        """Nodes that are about to leave; those that are gone already need not be among them."""
        ...


class Link(Protocol):
    """Talks to members; every method raises the `wire.errors` error that it met, but for `broken`,
    which returns when a connection breaks, and may never.

    See `cluster.probe.GrpcLink`.
    """

    async def describe(self, member: Member, term: int, timeout_s: float) -> Report: ...

    async def publish(self, router: Member, placement: Placement, timeout_s: float) -> Report: ...

    async def drain(self, router: Member, deadline_s: float) -> bool: ...

    async def broken(self, member: Member) -> None: ...

    async def load(self, worker: Member, epoch: Epoch, experts: Experts) -> None: ...

    async def evict(self, worker: Member, epoch: Epoch, experts: Experts) -> None: ...

    async def tokens(self, router: Member, timeout_s: float) -> Tokens: ...

    async def busy_seconds(self, worker: Member, timeout_s: float) -> float: ...

    async def close(self) -> None: ...
