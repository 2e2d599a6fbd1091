"""Compiled layers against those in torch, bit for bit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kimi_k2.batch import ForwardResult
from kimi_k2.checkpoint import Checkpoint
from kimi_k2.compiled_layers import CompiledLayers
from kimi_k2.latent_cache import BLOCK_SIZE, LatentCache
from kimi_k2.load import load_local_experts, load_router_model
from kimi_k2.local_experts import LocalExperts
from kimi_k2.model import Model
from kimi_k2.panels import PANEL, all_narrow, pack
from kimi_k2.team import Team
from kimi_k2.torch_layers import TorchLayers
from tests.support.checkpoints import Preset, write_random_checkpoint
from tests.support.models import random_model
from tests.support.sequences import Runner, run_together

LONGEST = 600
BLOCKS = -(-LONGEST // BLOCK_SIZE) + 1
MODELS: Mapping[str, tuple[Preset, Mapping[str, Any]]] = {
    "nano": ("nano", {"num_hidden_layers": 3}),
    "tiny": ("tiny", {}),
    "no low rank, tied, scores not normalised": (
        "tiny",
        {"q_lora_rank": None, "tie_word_embeddings": True, "norm_topk_prob": False},
    ),
    "odd": (
        "tiny",
        {
            "hidden_size": 60,
            "intermediate_size": 100,
            "moe_intermediate_size": 20,
            "num_attention_heads": 3,
            "qk_rope_head_dim": 6,
            "kv_lora_rank": 33,
            "v_head_dim": 17,
            "qk_nope_head_dim": 19,
            "q_lora_rank": 21,
        },
    ),
}
Pair = tuple[tuple[Model, LocalExperts], tuple[Model, LocalExperts]]


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """The same model with kernels and without."""
    preset, overrides = MODELS[request.param]
    overrides = {"vocab_size": 256, **overrides}
    compiled = random_model(overrides, preset=preset)
    if not isinstance(compiled[0].math, CompiledLayers):
        pytest.skip("this machine's library computes in a way that no kernel repeats")
    return compiled, random_model(overrides, preset=preset, kernels=False)


def run(
    model: Model, experts: LocalExperts, lengths: list[tuple[int, int]]
) -> tuple[ForwardResult, LatentCache]:
    """One pass over sequences that are (tokens in the cache, tokens of the pass) long."""
    count = len(lengths)
    cache = model.new_cache(count * BLOCKS)
    generator = torch.Generator().manual_seed(count)
    cache.pages.copy_(torch.randn(cache.pages.shape, generator=generator))
    parts = []
    for number, (position, length) in enumerate(lengths):
        blocks = [number + count * block for block in range(BLOCKS)]
        runner = Runner(model, experts, cache=cache, blocks=blocks)
        runner.position = position
        tokens = torch.randint(0, 256, (length,), generator=generator)
        parts.append((runner, tokens))
    return asyncio.run(run_together(parts, all_logits=True)), cache


def check(pair: Pair, lengths: list[tuple[int, int]]) -> None:
    (found, found_cache), (wanted, wanted_cache) = (run(*one, lengths) for one in pair)
    assert torch.equal(found.logits, wanted.logits)
    assert torch.equal(found_cache.pages, wanted_cache.pages)
    assert found.broken == wanted.broken == frozenset()


@pytest.mark.parametrize("rows", [*range(1, 18), 31, 63, 64, 65, 100, 127, 128, 129, 300, 600])
def test_any_number_of_rows(pair: Pair, rows: int) -> None:
    check(pair, [(0, rows)])


@pytest.mark.parametrize("seed", range(8))
def test_mixed_batches(pair: Pair, seed: int) -> None:
    """Decodes and prefills of any length, at any place."""
    choose = random.Random(seed)
    lengths = []
    for _ in range(choose.randint(1, 12)):
        length = choose.choice([1, 1, 1, 2, choose.randint(1, 150)])
        lengths.append((choose.randint(0, LONGEST - length), length))
    check(pair, lengths)


def test_passes_side_by_side(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several in flight on few threads, one after another and each at its own pace."""
    (model, experts), plain = pair
    monkeypatch.setattr(model.math, "team", Team(2))
    tokens = torch.randint(0, 256, (40,), generator=torch.Generator().manual_seed(3))

    async def grow(model: Model, experts: LocalExperts, cache: LatentCache, number: int) -> Any:
        blocks = [[4 * number + n] for n in range(4)]
        runners = [Runner(model, experts, cache=cache, blocks=b) for b in blocks]
        results = []
        for length in (2, 5, 3, 9):
            parts = [(runner, tokens[:length] + number) for runner in runners]
            results.append((await run_together(parts, all_logits=True)).logits)
            await asyncio.sleep(0)
        return results

    async def several(model: Model, experts: LocalExperts) -> tuple[list[Any], LatentCache]:
        cache = model.new_cache(12)
        return list(
            await asyncio.gather(*(grow(model, experts, cache, n) for n in range(3)))
        ), cache

    (found, found_cache), (wanted, wanted_cache) = (
        asyncio.run(several(*one)) for one in ((model, experts), plain)
    )
    assert torch.equal(found_cache.pages, wanted_cache.pages)
    for one, other in zip(found, wanted, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_rows_that_are_not_finite(pair: Pair) -> None:
    """One sequence's cache holds what no cache should: it alone is broken, in both alike."""
    results = []
    for model, experts in pair:
        cache = model.new_cache(4)
        cache.pages[1, 0, 3] = torch.nan
        runners = [Runner(model, experts, cache=cache, blocks=(block,)) for block in range(3)]
        for runner in runners:
            runner.position = 5
        parts = [(runner, torch.tensor([7, 8])) for runner in runners]
        results.append(asyncio.run(run_together(parts)))
    found, wanted = results
    assert found.broken == wanted.broken == {0, 1}
    assert torch.equal(found.logits[1:], wanted.logits[1:])


def test_layers_with_other_bits_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = CompiledLayers.start

    def differs(self: CompiledLayers, *arguments: Any) -> Any:
        running = honest(self, *arguments)
        running._x *= 1.0000001
        return running

    monkeypatch.setattr(CompiledLayers, "start", differs)
    model, _ = random_model({"vocab_size": 128})
    assert model.numerics.segments
    assert isinstance(model.math, TorchLayers)


def test_groups_of_experts_take_torch() -> None:
    model, _ = random_model({"vocab_size": 128, "n_group": 4, "topk_group": 2})
    assert isinstance(model.math, TorchLayers)


def test_weights_that_are_all_bfloat16(tmp_path: Path) -> None:
    """Kept as such in panels, as those of published checkpoints are."""
    write_random_checkpoint(tmp_path, {"vocab_size": 256}, with_tokenizer=False)
    model = load_router_model(tmp_path)
    experts = load_local_experts(tmp_path, numerics=model.numerics)
    if not isinstance(model.math, CompiledLayers):
        pytest.skip("this machine's library computes in a way that no kernel repeats")
    assert model.math.facts["narrow"] == 1
    numerics = replace(model.numerics, segments={})
    weights = Checkpoint(tmp_path).router_weights(torch.float32, "cpu", numerics.arrange)
    plain = Model(model.config, weights, numerics)
    assert isinstance(plain.math, TorchLayers)
    for lengths in ([(0, 1)], [(5, 1), (70, 3), (0, 140), (190, 1)]):
        check(((model, experts), (plain, experts)), lengths)


@pytest.mark.parametrize("shape", [(5, 130), (3, 4, 64), (2, 7, 17)])
def test_panels_hold_every_number_once(shape: tuple[int, ...]) -> None:
    weight = torch.arange(torch.Size(shape).numel()).float().view(shape)
    flat = pack(weight, torch.float32)
    assert torch.equal(flat.sort().values, weight.flatten())
    inner, columns = shape[-2:]
    width = min(PANEL, columns)
    first = weight.view(-1, inner, columns)[0, :, :width]
    assert torch.equal(flat[: inner * width].view(inner, width), first)


def test_what_is_a_bfloat16() -> None:
    assert all_narrow([torch.tensor([1.0, -0.375, 0.0])])
    assert not all_narrow([torch.ones(1), torch.tensor([1.001])])
