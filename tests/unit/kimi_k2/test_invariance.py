"""A row's bits depend on that row alone: every length from 1 to 600, cut and batched anyhow."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kimi_k2.latent_cache import BLOCK_SIZE, LatentCache
from kimi_k2.load import load_local_experts, load_router_model
from kimi_k2.local_experts import LocalExperts
from kimi_k2.model import Model
from tests.support.checkpoints import Preset, write_random_checkpoint
from tests.support.models import random_model
from tests.support.sequences import Runner, run_together

LONGEST = 600
BLOCKS = -(-LONGEST // BLOCK_SIZE)
VOCAB = 256


@dataclass(frozen=True)
class Reference:
    """One stream of tokens, run in one go: its logits at every position, and its latents."""

    model: Model
    experts: LocalExperts
    tokens: Tensor
    logits: Tensor
    latents: Tensor

    def check(self, runner: Runner, logits: Tensor) -> None:
        """The last logits and everything the runner's cache holds are the reference's bits."""
        length = runner.position
        assert torch.equal(logits, self.logits[length - 1])
        assert torch.equal(latents(runner), self.latents[:, :length])


@pytest.fixture(scope="module")
def reference() -> Reference:
    return make_reference(*random_model({"vocab_size": VOCAB}), length=LONGEST)


def make_reference(model: Model, experts: LocalExperts, length: int) -> Reference:
    tokens = torch.randint(0, VOCAB, (length,), generator=torch.Generator().manual_seed(3))
    runner = Runner(model, experts, num_blocks=BLOCKS)
    logits = asyncio.run(runner.extend(tokens, all_logits=True))
    assert bool(logits.isfinite().all())
    return Reference(model, experts, tokens, logits, latents(runner))


def latents(runner: Runner) -> Tensor:
    """[layers, position, latent_dim] in order of position."""
    pages = runner.cache.pages[:, list(runner.blocks)]
    return pages.flatten(1, 2)[:, : runner.position]


def dirty_cache(model: Model, num_blocks: int) -> LatentCache:
    """Blocks that other sequences used before: large finite garbage."""
    cache = model.new_cache(num_blocks)
    generator = torch.Generator().manual_seed(9)
    cache.pages.copy_(torch.randn(cache.pages.shape, generator=generator) * 1e4)
    return cache


def chunks(length: int, rng: random.Random, largest: int) -> Iterator[int]:
    while length:
        chunk = min(length, rng.randint(1, largest))
        yield chunk
        length -= chunk


def test_every_length_in_one_go(reference: Reference) -> None:
    async def run() -> None:
        cache = dirty_cache(reference.model, BLOCKS)
        for length in range(1, LONGEST + 1):
            runner = Runner(reference.model, reference.experts, cache=cache)
            logits = await runner.extend(reference.tokens[:length])
            reference.check(runner, logits[0])

    asyncio.run(run())


def test_every_length_one_by_one(reference: Reference) -> None:
    async def run() -> None:
        cache = dirty_cache(reference.model, BLOCKS)
        runner = Runner(reference.model, reference.experts, cache=cache)
        for position in range(LONGEST):
            logits = await runner.extend(reference.tokens[position : position + 1])
            assert torch.equal(logits[0], reference.logits[position])
        reference.check(runner, logits[0])

    asyncio.run(run())


@pytest.mark.parametrize("largest", [2, 7, 64, 130, 300])
def test_any_chunking(reference: Reference, largest: int) -> None:
    async def run() -> None:
        rng = random.Random(largest)
        for _ in range(3):
            blocks = rng.sample(range(BLOCKS + 5), BLOCKS)
            cache = dirty_cache(reference.model, BLOCKS + 5)
            runner = Runner(reference.model, reference.experts, cache=cache, blocks=blocks)
            for chunk in chunks(LONGEST, rng, largest):
                start = runner.position
                logits = await runner.extend(reference.tokens[start : start + chunk])
                reference.check(runner, logits[0])

    asyncio.run(run())


def test_every_length_in_batches_with_others(reference: Reference) -> None:
    """Each length appears once as what a mixed batch of prefills and decodes grew it to."""

    async def run() -> None:
        rng = random.Random(5)
        lengths = list(range(1, LONGEST + 1))
        rng.shuffle(lengths)
        cache = dirty_cache(reference.model, 12 * BLOCKS)
        while lengths:
            goals = [lengths.pop() for _ in range(min(12, len(lengths)))]
            free = rng.sample(range(12 * BLOCKS), 12 * BLOCKS)
            runners = [
                Runner(
                    reference.model,
                    reference.experts,
                    cache=cache,
                    blocks=free[i * BLOCKS : (i + 1) * BLOCKS],
                )
                for i in range(len(goals))
            ]
            while any(r.position < goal for r, goal in zip(runners, goals, strict=True)):
                parts = []
                for runner, goal in zip(runners, goals, strict=True):
                    left = goal - runner.position
                    if left:
                        size = rng.choice([left, 1, min(left, rng.randint(1, 200))])
                        start = runner.position
                        parts.append((runner, reference.tokens[start : start + size]))
                result = await run_together(parts)
                for (runner, _), logits in zip(parts, result.logits, strict=True):
                    assert torch.equal(logits, reference.logits[runner.position - 1])
            for runner in runners:
                reference.check(runner, reference.logits[runner.position - 1])

    asyncio.run(run())


def test_bfloat16(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, {"vocab_size": VOCAB}, with_tokenizer=False)
    model = load_router_model(tmp_path, "bfloat16")
    reference = make_reference(model, load_local_experts(tmp_path, numerics=model.numerics), 200)

    async def run() -> None:
        rng = random.Random(2)
        for largest in (1, 7, 90):
            runner = Runner(model, reference.experts, cache=dirty_cache(model, 4))
            for chunk in chunks(200, rng, largest):
                start = runner.position
                logits = await runner.extend(reference.tokens[start : start + chunk])
                reference.check(runner, logits[0])

    asyncio.run(run())


def test_prefix_reuse(reference: Reference) -> None:
    """A second sequence that takes over whole blocks of a first one, as the prefix cache does."""

    async def run() -> None:
        cache = dirty_cache(reference.model, 2 * BLOCKS)
        first = Runner(reference.model, reference.experts, cache=cache, blocks=range(BLOCKS))
        await first.extend(reference.tokens)
        for shared in range(1, BLOCKS):
            blocks = [*range(shared), *range(BLOCKS, 2 * BLOCKS - shared)]
            second = Runner(reference.model, reference.experts, cache=cache, blocks=blocks)
            second.position = shared * BLOCK_SIZE
            logits = await second.extend(reference.tokens[second.position :])
            reference.check(second, logits[0])

    asyncio.run(run())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_thread_count(reference: Reference, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = make_reference(reference.model, reference.experts, LONGEST)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(again.logits, reference.logits)
    assert torch.equal(again.latents, reference.latents)


ODD_SIZES = {
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


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [("nano", {"num_hidden_layers": 2}), ("tiny", ODD_SIZES)],
    ids=["nano-K2's sizes", "sizes that divide into no vector"],
)
def test_other_geometries(preset: Preset, overrides: dict[str, Any]) -> None:
    """Where products and vectors take other code than in the tiny model."""
    overrides = {"vocab_size": VOCAB, **overrides}
    reference = make_reference(*random_model(overrides, preset=preset), length=300)

    async def run() -> None:
        rng = random.Random(8)
        cache = dirty_cache(reference.model, 32 * BLOCKS)
        runners = [
            Runner(
                reference.model,
                reference.experts,
                cache=cache,
                blocks=range(i * BLOCKS, (i + 1) * BLOCKS),
            )
            for i in range(32)
        ]
        for _ in range(8):
            parts = []
            for runner in runners:
                size = rng.choice([1, 1, 1, rng.randint(1, 36)])
                start = runner.position
                parts.append((runner, reference.tokens[start : start + size]))
            result = await run_together(parts)
            for (runner, _), logits in zip(parts, result.logits, strict=True):
                reference.check(runner, logits)

    asyncio.run(run())
