"""Experts that are kept in INT4."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kimi_k2.checkpoint import Checkpoint
from kimi_k2.compiled_proof import with_kernels
from kimi_k2.expert_size import expert_nbytes
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.held_experts import held_experts, joined
from kimi_k2.int4 import dequantize
from kimi_k2.int4_tiles import int4_product
from kimi_k2.packed_experts import PackedExperts
from tests.support.checkpoints import write_random_checkpoint
from tests.support.models import unproven_numerics

LIBRARY = unproven_numerics()
WIDTH, HIDDEN, GROUP = 32, 64, 32
SHAPES = {"gate_proj": (WIDTH, HIDDEN), "up_proj": (WIDTH, HIDDEN), "down_proj": (HIDDEN, WIDTH)}


def stored(experts: int, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Any words at all, with scales of every size that kernels take, zero among them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (rows, columns) in SHAPES.items():
        shape = (experts, rows, columns // 8)
        words = torch.randint(-(1 << 31), 1 << 31, shape, generator=generator).to(torch.int32)
        groups = (experts, rows, columns // GROUP)
        bits = torch.randint(0x0080, 0x7501, groups, generator=generator)
        bits[:, ::7] = 0
        tensors[name] = (words, bits.to(torch.int16).view(torch.bfloat16))
    return tensors


def packed(tensors: dict[str, tuple[Tensor, Tensor]]) -> PackedExperts:
    experts = PackedExperts.empty(len(tensors["down_proj"][0]), WIDTH, HIDDEN, GROUP)
    for name, pair in tensors.items():
        experts.put(slice(None), name, *pair)
    return experts


def test_the_effective_weights_are_those_that_are_stored() -> None:
    tensors = stored(3)
    plain = packed(tensors).plain()
    parts = [dequantize(*tensors[name]) for name in ("gate_proj", "up_proj")]
    assert torch.equal(plain.gate_up, torch.cat(parts, dim=1))
    assert torch.equal(plain.down, dequantize(*tensors["down_proj"]))
    assert plain.column_major and plain.down.dtype is torch.bfloat16


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 64])
def test_every_weight_is_made_exactly_in_the_kernel(rows: int) -> None:
    """Rows of the identity show the weights themselves."""
    experts = packed(stored(40, seed=rows))
    assert experts.exact
    weights = experts.plain().gate_up.transpose(1, 2).float()
    one = torch.eye(HIDDEN)
    for slot in range(experts.slots):
        places = experts.gate_up[slot].data_ptr(), experts.gate_up_scale[slot].data_ptr()
        found = torch.empty(HIDDEN, 2 * WIDTH)
        for first in range(0, HIDDEN, rows):
            some = min(rows, HIDDEN - first)
            int4_product(
                one[first].data_ptr(),
                HIDDEN,
                some,
                *places,
                2 * WIDTH,
                found[first].data_ptr(),
                2 * WIDTH,
                HIDDEN,
                HIDDEN,
                GROUP,
                *places,
            )
        assert torch.equal(found, weights[slot])


@pytest.mark.parametrize("bits", [0x0001, 0x007F, 0x7501, 0x7F80, -0x4000])
def test_scales_that_kernels_do_not_take_are_noticed(bits: int) -> None:
    tensors = stored(2)
    assert packed(tensors).exact
    tensors["up_proj"][1].view(torch.int16)[1, 2, 0] = bits
    assert not packed(tensors).exact


def test_experts_move_and_meet() -> None:
    both = packed(stored(4))
    some = both.take(torch.tensor([3, 1]))
    assert torch.equal(some.plain().gate_up, both.plain().gate_up[[3, 1]])
    more = joined(both, some)
    assert isinstance(more, PackedExperts) and more.nbytes == both.nbytes * 6 // 4
    assert torch.equal(more.plain().down, torch.cat((both.plain().down, some.plain().down)))
    mixed = joined(both.plain(), some)
    assert isinstance(mixed, ExpertWeights)
    assert torch.equal(mixed.gate_up, more.plain().gate_up)
    wide = joined(some, both.plain().cast(torch.float32))
    assert isinstance(wide, ExpertWeights) and wide.down.dtype is torch.float32


@pytest.mark.parametrize("stored_as", ["int4", "bfloat16", "float32"])
def test_the_form_follows_what_is_stored(tmp_path: Path, stored_as: str) -> None:
    write_random_checkpoint(tmp_path, {"vocab_size": 64}, expert_format=stored_as)  # type: ignore[arg-type]
    checkpoint = Checkpoint(tmp_path)
    numerics = with_kernels(LIBRARY, checkpoint.config)
    if not numerics.segments:
        pytest.skip("this machine's library sums in a way that no kernel repeats")
    held = held_experts(checkpoint, 1, [5, 0, 15], numerics)
    wanted = checkpoint.expert_weights(1, [5, 0, 15])
    assert torch.equal(held.plain().gate_up.float(), wanted.gate_up)
    assert torch.equal(held.plain().down.float(), wanted.down)
    fraction = {"int4": 9 / 64, "bfloat16": 1 / 2, "float32": 1}[stored_as]
    assert held.nbytes == fraction * wanted.nbytes
    expected = expert_nbytes(checkpoint.config, 4, compiled=True)
    assert held.nbytes <= 3 * expected and (stored_as != "int4" or held.nbytes == 3 * expected)
    unproven = held_experts(checkpoint, 1, [5], LIBRARY)
    assert isinstance(unproven, ExpertWeights) and unproven.down.dtype is torch.float32
