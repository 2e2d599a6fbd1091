"""Which worker holds which expert, as a plain value.

Pure data: the planner makes it, the controller publishes it, routers dispatch by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, order=True)
class Epoch:
    """A placement's version; a higher term always wins, then the higher counter."""

    term: int
    counter: int


@dataclass(frozen=True, kw_only=True)
class WorkerAddress:
    """Where an expert worker listens and whose bits it agrees with."""

    worker_id: str
    address: str
    fingerprint: str
    node: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """`owners[layer][expert]` are the ids of the workers that hold it; may be empty.

    Layers are the checkpoint's layer numbers, and only layers with routed experts appear.
    """

    epoch: Epoch
    workers: Mapping[str, WorkerAddress]
    owners: Mapping[int, tuple[tuple[str, ...], ...]]

    def experts_of(self, worker_id: str) -> dict[int, list[int]]:
        """Layer to ascending logical experts that `worker_id` holds."""
        held = {
            layer: [e for e, ids in enumerate(experts) if worker_id in ids]
            for layer, experts in self.owners.items()
        }
        return {layer: experts for layer, experts in held.items() if experts}
