"""The exactness checks, for any implementation of `Experts`."""

from __future__ import annotations

from dataclasses import replace

from router_service.config import EngineConfig
from router_service.request import Request
from router_service.sampling import SamplingParams
from tests.integration.router_service.harness import Bench, Result, mixed_requests, prompt

SHAPES = (
    EngineConfig(prefix_cache=False, micro_batches=1, prefill_chunk=4096),
    EngineConfig(prefix_cache=True, micro_batches=1, prefill_chunk=256),
    EngineConfig(prefix_cache=True, micro_batches=2, prefill_chunk=64, min_micro_rows=1),
    EngineConfig(prefix_cache=False, micro_batches=4, prefill_chunk=130, min_micro_rows=1),
    EngineConfig(prefix_cache=True, micro_batches=4, prefill_chunk=33, max_running=11),
    EngineConfig(prefix_cache=False, micro_batches=2, prefill_chunk=7),
    EngineConfig(prefix_cache=True, micro_batches=2, prefill_chunk=300, max_running=3),
    EngineConfig(prefix_cache=False, micro_batches=2, prefill_chunk=128, attention_budget=2500),
)
"""Ways to run one batch that must not differ in a single bit."""

TIGHT = EngineConfig(kv_blocks=14, micro_batches=2, prefill_chunk=100, min_micro_rows=1)
"""So few KV blocks that requests have to be preempted."""


SECONDS = 240.0
"""Deadline of one comparison: minutes, since a busy machine may starve it."""


def shape_name(config: EngineConfig) -> str:
    """The part of a test's id that tells shapes apart."""
    return (
        f"chunk{config.prefill_chunk}-flight{config.micro_batches}-running{config.max_running}"
        f"-{'prefixes' if config.prefix_cache else 'anew'}"
    )


def differences(requests: list[Request], got: list[Result], want: list[Result]) -> list[str]:
    """Names the requests that differ, and where."""
    found = []
    for request, one, other in zip(requests, got, want, strict=True):
        if one != other:
            equal = sum(a == b for a, b in zip(one.logprobs, other.logprobs, strict=False))
            found.append(
                f"{request.request_id}, prompt {len(request.prompt_token_ids)}: {equal} of "
                f"{len(other.logprobs)} positions are equal, {one.tokens} and {other.tokens}"
            )
    return found


async def check_batch(bench: Bench, want: list[Result], config: EngineConfig) -> None:
    """32 mixed requests together are what each was alone."""
    requests = mixed_requests(bench.model.config.vocab_size)
    got, _ = await bench.together(requests, config)
    assert not differences(requests, got, want)


async def check_preemption(bench: Bench, want: list[Result]) -> None:
    """Giving blocks up and computing again changes nothing."""
    requests = mixed_requests(bench.model.config.vocab_size)
    got, engine = await bench.together(requests, TIGHT)
    assert engine.scheduler.preemptions > 0
    assert not differences(requests, got, want)


async def check_replay(bench: Bench, want: list[Result]) -> None:
    """A second engine continues each request at every cut as the first one did."""
    for request, whole in zip(
        mixed_requests(bench.model.config.vocab_size)[:9], want[:9], strict=True
    ):
        cuts = [
            replace(request, request_id=f"{request.request_id}/{cut}", output_token_ids=outputs)
            for cut in range(1, len(whole.tokens))
            if (outputs := whole.tokens[:cut])
        ]
        rests = [
            replace(whole, tokens=whole.tokens[cut:], logprobs=whole.logprobs[cut:])
            for cut in range(1, len(whole.tokens))
        ]
        got, _ = await bench.together(cuts, EngineConfig(prefill_chunk=50))
        assert not differences(cuts, got, rests)


def sweep_requests(vocab_size: int, lengths: range) -> list[Request]:
    """Prompts of these lengths, each the beginning of the next."""
    sampling = SamplingParams(max_tokens=2, logprobs=2, ignore_eos=True)
    return [
        Request(
            request_id=f"length-{length}",
            prompt_token_ids=prompt(length, vocab_size=vocab_size, seed=1),
            sampling=replace(sampling, seed=length),
        )
        for length in lengths
    ]
