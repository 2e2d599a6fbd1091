"""In which form a process keeps its routed experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kimi_k2.arithmetic import Numerics
from kimi_k2.checkpoint import Checkpoint
from kimi_k2.expert_formats import PackQuantizedReader
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.packed_experts import PackedExperts

HeldExperts = ExpertWeights | PackedExperts
"""`plain()` gives the weights of either as floats."""


def held_experts(
    checkpoint: Checkpoint, layer: int, experts: Sequence[int], numerics: Numerics
) -> HeldExperts:
    """Experts of one layer, in slots of the given order, in the fewest bytes that compute fast.

    INT4 where compiled kernels read it, bfloat16 where they run and no value is lost by it, and
    the activation dtype elsewhere. The form changes no bit of any result.

    Raises:
        CheckpointError: see `Checkpoint.expert_weights`.
    """
    config, reader = checkpoint.config, checkpoint.reader
    hidden, width = config.hidden_size, config.moe_intermediate_size
    up = numerics.segments.get((hidden, 2 * width))
    down = numerics.segments.get((width, hidden))
    if up is None or down is None:
        return checkpoint.expert_weights(layer, experts, numerics.dtype, numerics.device)
    int4 = isinstance(reader, PackQuantizedReader)
    if isinstance(reader, PackQuantizedReader) and PackedExperts.fits(
        hidden, width, reader.group_size, up, down
    ):
        packed = PackedExperts.empty(len(experts), width, hidden, reader.group_size)
        for some, stored in checkpoint.stored_experts(layer, experts):
            for projection, tensors in stored.items():
                packed.put(some, projection, tensors["weight_packed"], tensors["weight_scale"])
        return packed if packed.exact else packed.plain()
    narrow = int4 or checkpoint.expert_dtypes(layer, experts) == {"BF16"}
    dtype = torch.bfloat16 if narrow else numerics.dtype
    return checkpoint.expert_weights(layer, experts, dtype, column_major=True)


def joined(some: HeldExperts, more: HeldExperts) -> HeldExperts:
    """The experts of both, those of `more` in the slots after those of `some`."""
    if isinstance(some, PackedExperts) and isinstance(more, PackedExperts):
        return some.join(more)
    some, more = some.plain(), more.plain()
    if some.down.dtype != more.down.dtype:
        some, more = some.cast(torch.float32), more.cast(torch.float32)
    return some.join(more)
