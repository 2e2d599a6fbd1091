"""Runs requests on engines that differ in everything but the bits they must give."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from prometheus_client import CollectorRegistry

from kimi_k2.experts import Experts
from kimi_k2.model import Model
from kimi_k2.tokenizer import Tokenizer
from monitoring.metrics import RouterMetrics
from router_service.config import EngineConfig
from router_service.engine import Engine
from router_service.outputs import FinishReason, RequestOutput, TokenLogprobs
from router_service.request import Request
from router_service.request_stream import RequestStream
from router_service.sampling import SamplingParams
from router_service.telemetry import Telemetry
from router_service.visible_text import VisibleText
from tests.support.deadline import wait_until_async

ALONE = EngineConfig(prefix_cache=False, micro_batches=1, prefill_chunk=4096, kv_blocks=64)


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that must be equal, bit for bit."""

    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason
    stop_reason: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A model with its experts, to make engines of."""

    model: Model
    experts: Experts
    tokenizer: Tokenizer

    def engine(self, config: EngineConfig) -> Engine:
        return Engine(
            self.model,
            self.experts,
            partial(VisibleText, self.tokenizer),
            config,
            Telemetry(RouterMetrics(CollectorRegistry())),
            device=self.model.numerics.device,
        )

    async def together(
        self, requests: Sequence[Request], config: EngineConfig
    ) -> tuple[list[Result], Engine]:
        """All requests at once on one engine, which is stopped and clean afterwards."""
        engine = self.engine(config)
        engine.start()
        results = await asyncio.gather(*(collect(RequestStream(engine, r)) for r in requests))
        await wait_until_async(lambda: not engine.check_integrity(), "a clean engine", 10.0)
        await engine.stop()
        return list(results), engine

    async def alone(self, requests: Iterable[Request]) -> list[Result]:
        """Each request by itself on an engine without prefix cache and without chunks."""
        engine = self.engine(ALONE)
        engine.start()
        results = [await collect(RequestStream(engine, request)) for request in requests]
        await engine.stop()
        return results


async def collect(stream: RequestStream) -> Result:
    return result_of([output async for output in stream])


def result_of(outputs: Sequence[RequestOutput]) -> Result:
    """Raises the error with which the request ended, if it did."""
    last = outputs[-1]
    assert last.finish_reason is not None
    if last.error is not None:
        raise last.error
    return Result(
        tokens=tuple(token for output in outputs for token in output.token_ids),
        logprobs=tuple(entry for output in outputs for entry in output.logprobs),
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
    )


def prompt(length: int, *, vocab_size: int, seed: int = 0) -> tuple[int, ...]:
    """Prompts of one seed are prefixes of each other."""
    generator = random.Random(seed)
    return tuple(generator.randrange(vocab_size) for _ in range(length))


def mixed_requests(vocab_size: int, max_tokens: int = 12) -> list[Request]:
    """32 requests: many lengths, shared and unshared prefixes, every kind of sampling."""
    lengths = (1, 2, 3, 5, 7, 17, 31, 63, 64, 65, 100, 127, 128, 129, 191, 192, 193, 250, 300, 333)
    kinds = _kinds(max_tokens)
    requests = []
    for number in range(32):
        length = lengths[number % len(lengths)] + number // len(lengths)
        requests.append(
            Request(
                request_id=f"request-{number}",
                prompt_token_ids=prompt(length, vocab_size=vocab_size, seed=number % 3),
                sampling=replace(kinds[number % len(kinds)], seed=1000 + number),
            )
        )
    return requests


def _kinds(max_tokens: int) -> list[SamplingParams]:
    base = SamplingParams(max_tokens=max_tokens, ignore_eos=True, logprobs=5)
    return [
        replace(base, temperature=0.0),
        base,
        replace(base, temperature=0.6, top_p=0.9),
        replace(base, temperature=1.5, top_k=40, logprobs=20),
        replace(base, temperature=1.2, min_p=0.05, logprobs=0),
        replace(base, presence_penalty=0.7, frequency_penalty=0.4, repetition_penalty=1.3),
        replace(base, temperature=0.0, repetition_penalty=1.5, logit_bias={5: 3.1, 9: -4.3}),
        replace(base, temperature=0.8, top_k=20, top_p=0.8, min_p=0.02, min_tokens=4),
        replace(base, stop=tuple("aeiout"), stop_token_ids=tuple(range(20, 60)), min_tokens=2),
    ]
