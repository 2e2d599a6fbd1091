"""Everything at once, at random: each request still ends once, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from router_service.engine import Engine
from router_service.outputs import FinishReason, RequestOutput
from router_service.request_stream import RequestStream
from tests.support.deadline import run_async, wait_until_async
from tests.unit.router_service.fake_model import (
    FakeExperts,
    FakeModel,
    collect,
    engine,
    next_logits,
    request,
)
from wire.errors import OverloadedError

POISON = 49


def unpoisoned(generator: random.Random, length: int) -> list[int]:
    return [generator.randrange(2, POISON) for _ in range(length)]


async def one(
    served: Engine, generator: random.Random, number: int
) -> tuple[list[int], list[RequestOutput]] | None:
    """A request of random size that may abort, time out or poison its micro-batch."""
    prompt = unpoisoned(generator, generator.randrange(1, 150))
    if generator.random() < 0.05:
        prompt.append(POISON)
    made = request(
        prompt,
        f"r{number}",
        max_tokens=generator.randrange(1, 90),
        logit_bias={POISON: -100.0},
        timeout_s=0.01 if generator.random() < 0.05 else 30.0,
    )
    try:
        stream = RequestStream(served, made)
    except OverloadedError:
        return None
    if generator.random() < 0.2:
        pause = generator.random() * 0.05
        asyncio.get_running_loop().call_later(pause, stream.abort)
    return prompt, await collect(stream)


def is_continuation(prompt: list[int], outputs: list[RequestOutput]) -> bool:
    tokens = list(prompt)
    for output in outputs:
        for token in output.token_ids:
            logits = next_logits(tokens)
            logits[POISON] -= 100.0
            if token != int(logits.argmax()):
                return False
            tokens.append(token)
    return True


@pytest.mark.parametrize("seed", range(6))
def test_chaos(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    generator = random.Random(seed)
    model, experts = FakeModel(pauses=seed % 3), FakeExperts()
    served = engine(
        model,
        experts,
        kv_blocks=generator.choice((4, 9, 40)),
        micro_batches=generator.choice((1, 2, 4)),
        prefill_chunk=generator.choice((5, 40, 300)),
        min_micro_rows=generator.choice((1, 4)),
        max_running=generator.choice((3, 12)),
        max_waiting=20,
        park_poll_s=0.01,
        prefix_cache=seed != 3,
    )

    def poisoned(batch) -> None:  # type: ignore[no-untyped-def]
        if POISON in batch.token_ids.tolist():
            raise ValueError("poison")
        if violations := served.scheduler.violations():
            raise RuntimeError(f"{violations}")

    model.before = poisoned

    async def main() -> None:
        served.start()
        waves = []
        for number in range(60):
            waves.append(asyncio.create_task(one(served, generator, number)))
            if number % 7 == 0:
                experts.dead = {generator.randrange(2, POISON) for _ in range(3)}
                await asyncio.sleep(0.01)
            if number % 11 == 0:
                experts.dead = set()
                served.experts_changed()
        experts.dead = set()
        results = [result for result in await asyncio.gather(*waves) if result is not None]
        assert len(results) > 20
        assert all(is_continuation(prompt, outputs) for prompt, outputs in results)
        for prompt, outputs in results:
            error = outputs[-1].error
            assert error is None or "poison" in str(error) or "finished within" in str(error)
            if POISON in prompt:
                assert outputs[-1].finish_reason in (FinishReason.ERROR, FinishReason.ABORT)
        await wait_until_async(lambda: not served.check_integrity(), "a clean engine", 5.0)
        assert served.refusal is None
        await served.stop()

    run_async(main())
