"""The compiled network of routed experts against torch's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kimi_k2 import expert_proof
from kimi_k2.arithmetic import Numerics
from kimi_k2.combine import combine
from kimi_k2.compiled_proof import with_kernels
from kimi_k2.config import ModelConfig
from kimi_k2.expert_ffn import expert_ffn, expert_ffn_oracle
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.held_experts import HeldExperts
from kimi_k2.int4 import quantize
from kimi_k2.packed_experts import PackedExperts
from kimi_k2.routed_rows import compiled_rows
from tests.support.checkpoints import config_dict
from tests.support.models import unproven_numerics

LIBRARY = unproven_numerics()
EXPERTS, TOP_K, GROUP = 11, 4, 32
SIZES = {
    "nano": config_dict(preset="nano"),
    "tiny": config_dict(),
    "odd": config_dict({"hidden_size": 60, "moe_intermediate_size": 20}, "float32"),
    "wide": config_dict({"hidden_size": 1408, "moe_intermediate_size": 448}, "float32"),
}
FORMS = ("float32", "bfloat16", "int4")


@pytest.fixture(scope="module", params=SIZES)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return ModelConfig.from_dict(SIZES[request.param])


@pytest.fixture(scope="module")
def numerics(config: ModelConfig) -> Numerics:
    proven = with_kernels(LIBRARY, config)
    if not proven.segments:
        pytest.skip("this machine's library sums in a way that no kernel repeats")
    return proven


@pytest.fixture(scope="module", params=FORMS)
def held(request: pytest.FixtureRequest, config: ModelConfig, numerics: Numerics) -> HeldExperts:
    generator = torch.Generator().manual_seed(3)
    hidden, width = config.hidden_size, config.moe_intermediate_size
    gate_up = torch.randn(EXPERTS, 2 * width, hidden, generator=generator) / hidden**0.5
    down = torch.randn(EXPERTS, hidden, width, generator=generator) / width**0.5
    plain = ExpertWeights(gate_up=gate_up, down=down)
    if request.param != "int4":
        return plain.cast(getattr(torch, request.param)).as_column_major()
    up, last = (numerics.segments.get(key) for key in ((hidden, 2 * width), (width, hidden)))
    if not up or not last or not PackedExperts.fits(hidden, width, GROUP, up, last):
        pytest.skip("experts of these sizes are kept as bfloat16")
    packed = PackedExperts.empty(EXPERTS, width, hidden, GROUP)
    for name, weight in zip(
        ("gate_proj", "up_proj", "down_proj"), (*gate_up.chunk(2, dim=1), down), strict=True
    ):
        packed.put(slice(None), name, *quantize(weight, GROUP))
    return packed


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal in every bit, except that any NaN equals any other."""
    equal = a.view(torch.int32) == b.view(torch.int32)
    return bool((equal | (a.isnan() & b.isnan())).all())


class Rows:
    """Rows routed at random, some of them marked."""

    def __init__(self, count: int, hidden: int, experts: int = EXPERTS, most: int = TOP_K) -> None:
        generator = np.random.default_rng(count)
        self.x = torch.randn(count, hidden, generator=torch.Generator().manual_seed(count))
        self.combine = generator.random(count) < 0.5
        self.counts = np.where(self.combine, most, generator.integers(1, most + 1, count))
        chosen = [np.sort(generator.permutation(experts)[:many]) for many in self.counts]
        self.slots = np.concatenate(chosen).astype(np.int64)
        self.factors = generator.random(len(self.slots)).astype(np.float32)

    def compiled(
        self, held: HeldExperts, numerics: Numerics, out: Tensor | None = None
    ) -> Tensor | None:
        arrays = (self.counts, self.slots, self.combine, self.factors)
        return compiled_rows(self.x, *arrays, held, numerics, out)

    def wanted(self, held: HeldExperts) -> Tensor:
        pairs = self.x.repeat_interleave(torch.from_numpy(self.counts), 0)
        slots = torch.from_numpy(self.slots)
        rows = expert_ffn(pairs, slots, held.plain(), LIBRARY)
        assert same_bits(rows, expert_ffn_oracle(pairs, slots, held.plain(), LIBRARY))
        out, first = [], 0
        for count, marked in zip(self.counts, self.combine, strict=True):
            some = slice(first, first + int(count))
            factors = torch.from_numpy(self.factors[some])
            out.append(combine(rows[None, some], factors[None]) if marked else rows[some])
            first = some.stop
        return torch.cat(out)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 13, 31, 64, 200])
def test_any_number_of_rows(held: HeldExperts, numerics: Numerics, count: int) -> None:
    rows = Rows(count, held.plain().gate_up.shape[2])
    wanted = rows.wanted(held)
    found = rows.compiled(held, numerics)
    assert found is not None and torch.equal(found, wanted)
    given = torch.full_like(wanted, float("nan"))
    assert rows.compiled(held, numerics, given) is given
    assert torch.equal(given, wanted)


@pytest.mark.parametrize("crowd", [1, 63, 64, 65, 130])
def test_all_rows_to_few_experts(held: HeldExperts, numerics: Numerics, crowd: int) -> None:
    rows = Rows(crowd, held.plain().gate_up.shape[2], experts=TOP_K)
    found = rows.compiled(held, numerics)
    assert found is not None and torch.equal(found, rows.wanted(held))


def test_a_row_does_not_depend_on_the_others(held: HeldExperts, numerics: Numerics) -> None:
    rows = Rows(40, held.plain().gate_up.shape[2])
    together = rows.compiled(held, numerics)
    assert together is not None
    first_pair = first_place = 0
    for row, count in enumerate(rows.counts):
        pairs = slice(first_pair, first_pair + int(count))
        alone = compiled_rows(
            rows.x[row : row + 1],
            rows.counts[row : row + 1],
            rows.slots[pairs],
            rows.combine[row : row + 1],
            rows.factors[pairs],
            held,
            numerics,
        )
        assert alone is not None
        assert torch.equal(alone, together[first_place : first_place + len(alone)])
        first_pair, first_place = pairs.stop, first_place + len(alone)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-42, -1e-38, 3e4, -1e12, 3e38])
def test_special_values(held: HeldExperts, numerics: Numerics, value: float) -> None:
    rows = Rows(9, held.plain().gate_up.shape[2])
    rows.x[::2] = value
    rows.x[1, ::3] = value
    found = rows.compiled(held, numerics)
    assert found is not None and same_bits(found, rows.wanted(held))


def test_rows_without_experts_and_no_rows(held: HeldExperts, numerics: Numerics) -> None:
    rows = Rows(3, held.plain().gate_up.shape[2])
    empty = np.zeros(0, np.int64)
    found = compiled_rows(
        rows.x,
        np.zeros(3, np.int64),
        empty,
        np.array([True, False, True]),
        empty.astype(np.float32),
        held,
        numerics,
    )
    assert found is not None and torch.equal(found, torch.zeros(2, rows.x.shape[1]))
    found = compiled_rows(
        rows.x[:0], empty, empty, empty.astype(bool), empty.astype(np.float32), held, numerics
    )
    assert found is not None and found.shape == (0, rows.x.shape[1])


def test_marked_rows_whose_experts_do_not_ascend_are_left_to_torch(
    held: HeldExperts, numerics: Numerics
) -> None:
    rows = Rows(2, held.plain().gate_up.shape[2])
    rows.combine[:], rows.counts[:] = True, 2
    rows.slots, rows.factors = np.array([1, 3, 3, 1]), rows.factors[:4].copy()
    assert rows.compiled(held, numerics) is None


def test_what_was_not_proven_is_left_to_torch(held: HeldExperts, numerics: Numerics) -> None:
    rows = Rows(2, held.plain().gate_up.shape[2])
    assert rows.compiled(held, LIBRARY) is None
    if isinstance(held, ExpertWeights):
        rows_first = ExpertWeights(gate_up=held.gate_up.contiguous(), down=held.down.contiguous())
        assert rows.compiled(rows_first, numerics) is None


def test_a_network_with_other_bits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = expert_proof.compiled_rows

    def differs(*arguments: object) -> Tensor | None:
        out = honest(*arguments)  # type: ignore[arg-type]
        return None if out is None else out * 1.0000001

    monkeypatch.setattr(expert_proof, "compiled_rows", differs)
    assert not with_kernels(LIBRARY, ModelConfig.from_dict(config_dict())).segments
