from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kimi_k2 import numerics as module
from kimi_k2 import self_test
from kimi_k2.arithmetic import Numerics
from kimi_k2.config import ModelConfig
from kimi_k2.errors import ConfigError, NumericsError
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.fingerprint import fingerprint
from kimi_k2.local_experts import LocalExperts
from kimi_k2.model import Model
from kimi_k2.numerics import prove_numerics
from kimi_k2.self_test import ProductShape, expert_rows_vary, first_variant, product_shapes
from kimi_k2.weights import router_weights
from tests.support.checkpoints import config_dict, random_tensors
from tests.support.models import stacked_experts, unproven_numerics
from tests.support.sequences import Runner

TINY = ModelConfig.from_dict(config_dict())
NANO = ModelConfig.from_dict(config_dict(preset="nano"))
ODD = {
    "hidden_size": 60,
    "intermediate_size": 100,
    "moe_intermediate_size": 20,
    "num_attention_heads": 3,
    "qk_rope_head_dim": 6,
    "kv_lora_rank": 33,
    "v_head_dim": 17,
    "qk_nope_head_dim": 19,
    "q_lora_rank": 21,
}


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts the thread count back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("config", [TINY, NANO], ids=["tiny", "nano"])
def test_fingerprint_is_the_same_for_any_thread_count(config: ModelConfig, threads: None) -> None:
    found = set()
    for count in (1, 2):
        torch.set_num_threads(count)
        found.add(prove_numerics(config).fingerprint)
    assert len(found) == 1


def test_fingerprint_differs_between_sizes_formats_and_dtypes() -> None:
    plain = ModelConfig.from_dict(config_dict(expert_format="bfloat16"))
    odd = ModelConfig.from_dict(config_dict(ODD, "float32"))
    fingerprints = {
        prove_numerics(TINY).fingerprint,
        prove_numerics(plain).fingerprint,
        prove_numerics(NANO).fingerprint,
        prove_numerics(odd).fingerprint,
        prove_numerics(TINY, "bfloat16").fingerprint,
    }
    assert len(fingerprints) == 5


def test_rows_that_depend_on_their_number_get_one_fixed_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows that share a product with an odd number of blocks are made to differ."""
    honest = Numerics.linear

    def depends_on_number(self: Numerics, x: Tensor, weight: Tensor) -> Tensor:
        return honest(self, x, weight) * (1 + x.shape[0] // self.row_quantum % 2)

    monkeypatch.setattr(Numerics, "linear", depends_on_number)
    numerics = prove_numerics(TINY)
    assert numerics.max_rows == numerics.row_quantum


def test_rows_that_depend_on_their_place_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Numerics.linear

    def depends_on_place(self: Numerics, x: Tensor, weight: Tensor) -> Tensor:
        return honest(self, x, weight) * (1 + torch.arange(x.shape[0])[:, None] % 2)

    monkeypatch.setattr(Numerics, "linear", depends_on_place)
    with pytest.raises(NumericsError, match="no row quantum"):
        prove_numerics(TINY)


def test_a_batch_count_that_changes_bits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Numerics.batched

    def depends_on_count(self: Numerics, a: Tensor, b: Tensor) -> Tensor:
        return honest(self, a, b) + (a.shape[0] == 3)

    monkeypatch.setattr(Numerics, "batched", depends_on_count)
    shape = ProductShape(inner=16, columns=16, batch=8)
    assert first_variant(unproven_numerics(), (shape,)) == shape


def test_an_expert_network_that_varies_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = self_test.expert_ffn

    def depends_on_rows(
        x: Tensor, slots: Tensor, weights: ExpertWeights, numerics: Numerics
    ) -> Tensor:
        return honest(x, slots, weights, numerics) * (1 + x.shape[0] % 2)

    assert not self_test.expert_rows_vary(unproven_numerics(), TINY)
    monkeypatch.setattr(self_test, "expert_ffn", depends_on_rows)
    assert self_test.expert_rows_vary(unproven_numerics(), TINY)


def test_proven_weights_are_bounded() -> None:
    """K2's own sizes must not make a start-up test of gigabytes."""
    huge = ModelConfig.from_dict(
        config_dict({"hidden_size": 7168, "moe_intermediate_size": 2048, "vocab_size": 163840})
    )
    for shape in self_test.product_shapes(huge):
        assert (shape.batch or 1) * shape.inner * shape.columns <= 1 << 24


def test_the_next_quantum_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    refuted = module.first_variant

    def four_fails(candidate: Numerics, shapes: tuple[ProductShape, ...]) -> ProductShape | None:
        return shapes[0] if candidate.row_quantum == 4 else refuted(candidate, shapes)

    wanted = prove_numerics(TINY)
    monkeypatch.setattr(module, "first_variant", four_fails)
    numerics = prove_numerics(TINY)
    assert numerics.row_quantum == 8
    assert numerics.fingerprint == wanted.fingerprint


def test_unknown_dtype() -> None:
    with pytest.raises(ConfigError, match="float16"):
        prove_numerics(TINY, "float16")


@pytest.mark.parametrize("function", ["exp2", "sigmoid", "silu"])
def test_elementwise_bits_do_not_depend_on_size_or_layout(function: str, threads: None) -> None:
    numerics = unproven_numerics()
    apply = getattr(numerics, function)
    x = torch.randn(700, 100, generator=torch.Generator().manual_seed(0)) * 4
    wanted = apply(x)
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(apply(x), wanted)
        for rows in (1, 2, 3, 17, 331):
            assert torch.equal(apply(x[:rows]), wanted[:rows])
        assert torch.equal(apply(x[:, 3:50]), wanted[:, 3:50])
        assert torch.equal(apply(x.T), wanted.T)


def test_masked_scores_are_exact_no_ops() -> None:
    numerics = unproven_numerics()
    assert numerics.exp2(torch.full((100,), float("-inf"))).eq(0).all()
    assert numerics.exp2(torch.zeros(100)).eq(1).all()


def test_a_model_with_device_shapes_gives_the_same_bits() -> None:
    """The shapes used on a GPU, run on this processor: 128 rows, 16 blocks."""
    config = ModelConfig.from_dict(config_dict({"vocab_size": 64}, "float32"))
    tensors = random_tensors(config, seed=0)
    tokens = torch.arange(64).repeat(3)
    logits = []
    for shapes in (
        unproven_numerics(),
        replace(unproven_numerics(128), max_rows=128, blocks_at_once=16),
    ):
        model = Model(config, router_weights(config, tensors, torch.float32, "cpu"), shapes)
        experts = LocalExperts(stacked_experts(config, tensors), shapes)
        runner = Runner(model, experts, num_blocks=4)
        logits.append(asyncio.run(runner.extend(tokens, all_logits=True)))
        logits.append(asyncio.run(runner.extend(tokens[:1])))
    assert torch.equal(logits[0], logits[2])
    assert torch.equal(logits[1], logits[3])


@pytest.mark.parametrize("shape", [(16, 16, 16), (128, 128, 16)])
def test_one_fixed_shape_passes_the_self_test(shape: tuple[int, int, int]) -> None:
    """What is left when products of several row counts do not agree, and what a GPU gets."""
    quantum, max_rows, blocks_at_once = shape
    config = ModelConfig.from_dict(config_dict({"vocab_size": 64}, "float32"))
    fixed = replace(unproven_numerics(quantum), max_rows=max_rows, blocks_at_once=blocks_at_once)
    assert first_variant(fixed, product_shapes(config)) is None
    assert not expert_rows_vary(fixed, config)
    assert fingerprint(config, fixed) == prove_numerics(config).fingerprint


@pytest.mark.parametrize("rows", [0, 1, 4, 511, 513, 1100])
def test_linear_takes_any_number_of_rows(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1100, 48, generator=generator)
    weight = torch.randn(80, 48, generator=generator)
    numerics = unproven_numerics()
    assert torch.equal(numerics.linear(x[:rows], weight), numerics.linear(x, weight)[:rows])


def test_rms_norm_rows_are_independent() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(65, 256, generator=generator)
    weight = torch.randn(256, generator=generator)
    numerics = unproven_numerics()
    wanted = numerics.rms_norm(x, weight, 1e-6)
    for rows in (1, 2, 5, 64):
        assert torch.equal(numerics.rms_norm(x[:rows], weight, 1e-6), wanted[:rows])
    assert torch.allclose(wanted, torch.nn.functional.rms_norm(x, (256,), weight, 1e-6), atol=1e-6)
