"""What the planner has to know of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The routed experts of a model.

    layers: the checkpoint's numbers of the layers that have routed experts, ascending.
    experts: logical experts in each of them.
    top_k: experts a row goes to.
    hidden: width of a row.
    activation_bytes: bytes of one element of a row on the wire.
    expert_bytes: bytes of one expert as a worker holds it, which is also what it reads to use it.
    """

    layers: tuple[int, ...]
    experts: int
    top_k: int
    hidden: int
    activation_bytes: int
    expert_bytes: int

    @property
    def row_bytes(self) -> int:
        return self.hidden * self.activation_bytes

    @property
    def total_bytes(self) -> int:
        """Of all routed experts, each once."""
        return len(self.layers) * self.experts * self.expert_bytes
