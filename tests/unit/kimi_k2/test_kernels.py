"""Compiled kernels against the torch path, bit for bit."""

from __future__ import annotations

import random
from dataclasses import replace

import numba
import pytest
import torch
from torch import Tensor

from kimi_k2 import compiled_proof, jit
from kimi_k2.arithmetic import Numerics, column_major
from kimi_k2.attention_plan import plan_attention
from kimi_k2.batch import Segment
from kimi_k2.compiled_proof import with_kernels
from kimi_k2.config import ModelConfig
from kimi_k2.expert_ffn import expert_ffn, expert_ffn_oracle
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.exponential import exp2
from kimi_k2.fingerprint import fingerprint
from kimi_k2.latent_cache import BLOCK_SIZE
from kimi_k2.paged_attention import paged_attention
from tests.support.checkpoints import config_dict
from tests.support.models import unproven_numerics

LIBRARY = unproven_numerics()
SIZES = {
    "nano": config_dict(preset="nano"),
    "tiny": config_dict(),
    "odd": config_dict(
        {
            "hidden_size": 60,
            "moe_intermediate_size": 20,
            "num_attention_heads": 3,
            "qk_rope_head_dim": 6,
            "kv_lora_rank": 33,
            "v_head_dim": 17,
            "qk_nope_head_dim": 19,
        },
        "float32",
    ),
    "wide": config_dict(
        {"hidden_size": 1408, "moe_intermediate_size": 448, "num_attention_heads": 16}, "float32"
    ),
}


@pytest.fixture(scope="module", params=SIZES)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return ModelConfig.from_dict(SIZES[request.param])


@pytest.fixture(scope="module")
def numerics(config: ModelConfig) -> Numerics:
    proven = with_kernels(LIBRARY, config)
    if not proven.segments:
        pytest.skip("this machine's library sums in a way that no kernel repeats")
    return proven


def values(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 13, 31, 70])
def test_products(config: ModelConfig, numerics: Numerics, rows: int) -> None:
    for inner, columns in numerics.segments:
        x, weight = values(rows, rows, inner), values(1, columns, inner)
        found = numerics.linear(x, column_major(weight))
        assert torch.equal(found, LIBRARY.linear(x, weight))


@pytest.mark.parametrize("heads", [1, 3, 4])
@pytest.mark.parametrize("rows", [4, 8, 36])
def test_products_of_each_head(numerics: Numerics, heads: int, rows: int) -> None:
    for inner, columns in numerics.segments:
        x, weight = values(rows, rows, heads, inner + 3), values(1, heads, inner, columns)
        x = x[:, :, 1 : 1 + inner]
        assert torch.equal(numerics.per_head(x, weight), LIBRARY.per_head(x, weight))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 33, 70, 400])
def test_experts(config: ModelConfig, numerics: Numerics, rows: int) -> None:
    hidden, width = config.hidden_size, config.moe_intermediate_size
    weights = ExpertWeights(
        gate_up=values(0, 7, 2 * width, hidden) / hidden**0.5,
        down=values(1, 7, hidden, width) / width**0.5,
    )
    x = values(rows, rows, hidden)
    slots = torch.randint(0, 7, (rows,), generator=torch.Generator().manual_seed(rows))
    found = expert_ffn(x, slots, weights.as_column_major(), numerics)
    assert torch.equal(found, expert_ffn(x, slots, weights, LIBRARY))
    assert torch.equal(found, expert_ffn_oracle(x, slots, weights, LIBRARY))


@pytest.mark.parametrize("seed", range(12))
def test_attention(config: ModelConfig, numerics: Numerics, seed: int) -> None:
    """Segments of 1 to 70 rows at any position, their pages anywhere in the cache."""
    choose = random.Random(seed)
    heads, blocks = config.num_attention_heads, 12
    segments: list[Segment] = []
    rows = 0
    for _ in range(choose.randint(1, 6)):
        length = choose.choice([1, 1, 2, choose.randint(1, 70)])
        position = choose.randint(0, 4 * BLOCK_SIZE)
        count = -(-(position + length) // BLOCK_SIZE)
        table = tuple(choose.sample(range(blocks), count))
        segments.append(Segment(start=rows, length=length, position=position, block_table=table))
        rows += length
    query = values(seed, rows + 2, heads, config.latent_dim) * choose.choice([0.05, 1.0])
    pages = values(seed + 1, blocks, BLOCK_SIZE, config.latent_dim)

    def attended(numerics: Numerics) -> Tensor:
        plan = plan_attention(segments, heads, numerics)
        return paged_attention(query, pages, config.kv_lora_rank, plan, numerics)

    assert torch.equal(attended(numerics), attended(LIBRARY))
    assert attended(numerics)[rows:].eq(0).all()


@pytest.mark.parametrize("span", [1.0, 20.0, 200.0])
def test_power_of_two(span: float) -> None:
    x = -torch.rand(20000, generator=torch.Generator().manual_seed(0)) * span
    x = torch.cat((x, -x / 2, torch.tensor([0.0, -0.0, float("-inf"), -149.9, 127.9])))
    found = torch.tensor([exp2(one) for one in x.numpy()])
    assert torch.equal(found, torch.exp2(torch.cat((x, x.new_zeros(-len(x) % 64))))[: len(x)])


def test_the_fingerprint_does_not_tell_kernels_from_the_library(
    config: ModelConfig, numerics: Numerics
) -> None:
    assert fingerprint(config, numerics) == fingerprint(config, LIBRARY)


def test_other_layouts_and_sizes_take_the_library(numerics: Numerics) -> None:
    inner, columns = next(iter(numerics.segments))
    x, weight = values(0, 5, inner), values(1, columns, inner)
    assert torch.equal(numerics.linear(x, weight), LIBRARY.linear(x, weight))
    x, weight = values(0, 5, 97), values(1, 31, 97)
    assert torch.equal(numerics.linear(x, column_major(weight)), LIBRARY.linear(x, weight))


def test_a_kernel_with_other_bits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig.from_dict(config_dict())
    honest = compiled_proof.paged_attention

    def differs(
        query: Tensor, pages: Tensor, value_dim: int, plan: object, numerics: Numerics
    ) -> Tensor:
        out = honest(query, pages, value_dim, plan, numerics)  # type: ignore[arg-type]
        return out * 1.0000001 if numerics.segments else out

    monkeypatch.setattr(compiled_proof, "paged_attention", differs)
    assert not with_kernels(LIBRARY, config).segments


def test_kernels_are_for_float32_on_cpu() -> None:
    other = replace(LIBRARY, dtype=torch.bfloat16)
    assert with_kernels(other, ModelConfig.from_dict(config_dict())) is other


def test_experts_keep_their_layout_when_they_move() -> None:
    weights = ExpertWeights(gate_up=values(0, 4, 8, 6), down=values(1, 4, 6, 4)).as_column_major()
    some = weights.take(torch.tensor([3, 1]))
    assert some.column_major
    assert torch.equal(some.gate_up, weights.gate_up[[3, 1]])
    joined = weights.join(some)
    assert joined.column_major
    assert torch.equal(joined.down, torch.cat((weights.down, some.down)))


def test_nowhere_to_keep_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only install without a home directory compiles, as if for the first time."""
    honest = numba.njit

    def refuses(**options: bool) -> object:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return honest(**options)

    monkeypatch.setattr(jit.numba, "njit", refuses)

    def double(x: int) -> int:
        return 2 * x

    assert jit.compiled(double)(21) == 42
