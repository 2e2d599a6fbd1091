"""A request gets the same bits whatever happens around it, with experts in this process."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from kimi_k2.latent_cache import BLOCK_SIZE
from router_service.config import EngineConfig
from router_service.engine import Engine
from router_service.outputs import FinishReason, RequestOutput
from router_service.request import Request
from router_service.request_stream import RequestStream
from tests.integration.router_service import exactness
from tests.integration.router_service.harness import Bench, Result, mixed_requests, result_of
from tests.support.deadline import run_async as run_bounded

run_async = partial(run_bounded, seconds=exactness.SECONDS)


@pytest.fixture(scope="module")
def expected(bench: Bench) -> list[Result]:
    """What each of the mixed requests gets alone."""
    return run_async(bench.alone(mixed_requests(bench.model.config.vocab_size)))


def test_the_requests_are_worth_comparing(expected: list[Result]) -> None:
    assert {result.finish_reason for result in expected} == {
        FinishReason.LENGTH,
        FinishReason.STOP,
    }
    assert len({result.tokens for result in expected}) == len(expected)
    assert all(len(result.logprobs) == len(result.tokens) for result in expected)


@pytest.mark.parametrize("config", exactness.SHAPES, ids=exactness.shape_name)
def test_alone_and_in_a_batch_of_32(
    bench: Bench, expected: list[Result], config: EngineConfig
) -> None:
    run_async(exactness.check_batch(bench, expected, config))


def test_after_preemption(bench: Bench, expected: list[Result]) -> None:
    run_async(exactness.check_preemption(bench, expected))


def test_a_replay_at_every_cut(bench: Bench, expected: list[Result]) -> None:
    run_async(exactness.check_replay(bench, expected))


def test_the_prefix_cache_filled_by_an_earlier_run(bench: Bench, expected: list[Result]) -> None:
    requests = mixed_requests(bench.model.config.vocab_size)

    async def twice() -> tuple[list[Result], list[Result]]:
        engine = bench.engine(EngineConfig(prefill_chunk=90))
        engine.start()
        first = await asyncio.gather(*(outputs_of(engine, request) for request in requests))
        second = await asyncio.gather(*(outputs_of(engine, request) for request in requests))
        await engine.stop()
        for *_, last in second:
            # All full blocks of the prompt, but never its last token.
            assert last.cached_tokens == (last.prompt_tokens - 1) // BLOCK_SIZE * BLOCK_SIZE
        assert sum(last.cached_tokens > 0 for *_, last in second) >= 10
        return [result_of(outputs) for outputs in first], [result_of(o) for o in second]

    first, second = run_async(twice())
    assert not exactness.differences(requests, first, expected)
    assert not exactness.differences(requests, second, expected)


async def outputs_of(engine: Engine, request: Request) -> list[RequestOutput]:
    return [output async for output in RequestStream(engine, request)]


def test_bfloat16_activations(half_bench: Bench) -> None:
    requests = mixed_requests(half_bench.model.config.vocab_size)
    want = run_async(half_bench.alone(requests))
    for config in exactness.SHAPES[1:4]:
        run_async(exactness.check_batch(half_bench, want, config))
    run_async(exactness.check_preemption(half_bench, want))


def test_every_prompt_length_from_1_to_600(bench: Bench) -> None:
    requests = exactness.sweep_requests(bench.model.config.vocab_size, range(1, 601))
    config = EngineConfig(max_waiting=600, micro_batches=2, prefill_chunk=137)
    want = run_async(bench.alone(requests))
    got, _ = run_async(bench.together(requests, config))
    assert not exactness.differences(requests, got, want)
