"""One result that is not finite ends its own request, and nobody else ever meets it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from kimi_k2.experts import Experts, RoutedRows
from router_service.config import EngineConfig
from router_service.engine import Engine
from router_service.request import Request
from router_service.request_stream import RequestStream
from router_service.sampling import SamplingParams
from tests.integration.router_service.harness import Bench, Result, collect, prompt
from tests.support.deadline import run_async, wait_until_async
from wire.errors import InternalError

FEW_BLOCKS = EngineConfig(kv_blocks=6, prefill_chunk=64, micro_batches=2, min_micro_rows=1)


@dataclass(frozen=True)
class Ready(Awaitable[RoutedRows]):
    rows: RoutedRows

    def __await__(self) -> Generator[None, None, RoutedRows]:
        yield from asyncio.sleep(0).__await__()
        return self.rows


class Faulty:
    """Passes on to `experts`; call number `strike` gives NaN in some of its last active rows.

    dead: while true, the last active row of a call misses expert 0.
    fails: call number `strike` raises, after NaN in the call before.
    """

    def __init__(self, experts: Experts) -> None:
        self._experts = experts
        self.strike = -1
        self.fails = False
        self.dead = False

    async def dispatch(
        self, layer: int, x: Tensor, topk_idx: Tensor, topk_weights: Tensor, active: Tensor | None
    ) -> Awaitable[RoutedRows]:
        pending = await self._experts.dispatch(layer, x, topk_idx, topk_weights, active)
        routed = await pending
        self.strike -= 1
        last = x.shape[0] - 1 if active is None else int(active.nonzero()[-1])
        if self.strike == 0 or (self.fails and self.strike == 1):
            if self.strike == 0 and self.fails:
                raise RuntimeError("the experts have failed")
            rows = routed.rows.clone()
            first = max(0, last - 5)
            rows[first : max(last, first + 1)] = float("nan")
            routed = replace(routed, rows=rows)
        if self.dead:
            parked = torch.zeros(x.shape[0], dtype=torch.bool)
            parked[last] = True
            routed = replace(routed, parked=parked, missing={last: (layer, 0)})
        return Ready(routed)

    def is_live(self, layer: int, expert: int) -> bool:
        return not self.dead


def ask(length: int, seed: int, vocab_size: int, name: str = "ask") -> Request:
    return Request(
        request_id=f"{name}-{length}-{seed}",
        prompt_token_ids=prompt(length, vocab_size=vocab_size, seed=seed),
        sampling=SamplingParams(temperature=0.0, max_tokens=5, logprobs=3, ignore_eos=True),
    )


async def one(engine: Engine, request: Request) -> Result:
    return await collect(RequestStream(engine, request))


@pytest.mark.parametrize("prefix_cache", [True, False])
@pytest.mark.parametrize(
    ("strike", "fails"),
    [*((call, False) for call in (1, 2, 3, 6, 7, 10)), *((call, True) for call in (2, 6, 8))],
)
def test_one_result_that_is_not_finite(
    bench: Bench, prefix_cache: bool, strike: int, fails: bool
) -> None:
    """The strike falls on the first chunk, a later one, the last one or a decoding step.

    There are two calls to a pass.
    """
    vocab_size = bench.model.config.vocab_size
    bystanders = [ask(130, 1, vocab_size), ask(70, 2, vocab_size)]
    victim = ask(190, 3, vocab_size)
    # Of the victim's prefix and of others, of many lengths, so that every block is used again.
    later = [ask(length, 3, vocab_size, "same") for length in (65, 129, 190, 200, 300)]
    later += [ask(length, 4 + length, vocab_size, "other") for length in (10, 100, 150, 250)]
    want = run_async(bench.alone([*bystanders, *later]))
    faulty = Faulty(bench.experts)
    config = replace(FEW_BLOCKS, prefix_cache=prefix_cache)
    engine = replace(bench, experts=faulty).engine(config)

    async def scenario() -> list[Result]:
        engine.start()
        got = [await one(engine, request) for request in bystanders]
        faulty.strike, faulty.fails = strike, fails
        with pytest.raises(InternalError):
            await one(engine, victim)
        got += [await one(engine, request) for request in later]
        await wait_until_async(lambda: not engine.check_integrity(), "a clean engine", 10.0)
        await engine.stop()
        return got

    assert run_async(scenario()) == want


def test_neighbours_in_the_micro_batch_go_on(bench: Bench) -> None:
    vocab_size = bench.model.config.vocab_size
    first, last = ask(40, 1, vocab_size), ask(20, 2, vocab_size)
    want = run_async(bench.alone([first]))
    faulty = Faulty(bench.experts)
    engine = replace(bench, experts=faulty).engine(EngineConfig())

    async def scenario() -> list[object]:
        engine.start()
        faulty.strike = 2
        both = [RequestStream(engine, request) for request in (first, last)]
        got = await asyncio.gather(*map(collect, both), return_exceptions=True)
        await engine.stop()
        return list(got)

    good, bad = run_async(scenario())
    assert good == want[0]
    assert isinstance(bad, InternalError)


def test_a_request_that_is_parked_and_not_finite(bench: Bench) -> None:
    """It ends, and what the void rows left behind reaches nobody."""
    vocab_size = bench.model.config.vocab_size
    later = [ask(length, 3 + length % 2, vocab_size) for length in (64, 101, 190, 250)]
    want = run_async(bench.alone(later))
    faulty = Faulty(bench.experts)
    engine = replace(bench, experts=faulty).engine(FEW_BLOCKS)

    async def scenario() -> list[Result]:
        engine.start()
        faulty.dead, faulty.strike = True, 1
        with pytest.raises(InternalError):
            await one(engine, ask(190, 3, vocab_size))
        faulty.dead = False
        got = [await one(engine, request) for request in later]
        await engine.stop()
        return got

    assert run_async(scenario()) == want


def test_a_request_that_is_aborted_meanwhile(bench: Bench) -> None:
    vocab_size = bench.model.config.vocab_size
    later = [ask(length, 3 + length % 2, vocab_size) for length in (64, 101, 190, 250)]
    want = run_async(bench.alone(later))
    faulty = Faulty(bench.experts)
    engine = replace(bench, experts=faulty).engine(FEW_BLOCKS)

    async def scenario() -> list[Result]:
        engine.start()
        faulty.strike = 1
        stream = RequestStream(engine, ask(60, 3, vocab_size))
        await wait_until_async(lambda: faulty.strike <= 0, "the strike", 10.0)
        stream.abort()
        got = [await one(engine, request) for request in later]
        await engine.stop()
        return got

    assert run_async(scenario()) == want
