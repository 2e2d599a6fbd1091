"""Streams that never end, and the gaps between their tokens."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from time import perf_counter

from benchmarks.serving.load import ORDINARY
from wire.clients.generate import GenerateStream
from wire.errors import OrreryError
from wire.generated import orrery_pb2 as pb


@dataclass(kw_only=True)
class Gaps:
    """(when a token came, seconds since the one before it of the same answer)."""

    seen: list[tuple[float, float]] = field(default_factory=list)

    def between(self, start: float, end: float) -> list[float]:
        """The gaps that ended then, ascending."""
        return sorted(gap for at, gap in self.seen if start <= at < end)


async def ask_on(
    stream: GenerateStream, name: str, vocab_size: int, tokens_in: int, tokens_out: int, gaps: Gaps
) -> None:
    """One request after another until cancelled.

    Raises:
        OrreryError: a request failed.
    """
    draw, number = random.Random(name), 0
    while True:
        number += 1
        prompt = [draw.randrange(int(vocab_size * ORDINARY)) for _ in range(tokens_in)]
        submit = pb.Submit(
            request_id=f"{name}-{number}",
            prompt_token_ids=prompt,
            sampling=pb.SamplingParams(
                max_tokens=tokens_out, top_p=1.0, repetition_penalty=1.0, ignore_eos=True
            ),
        )
        last = None
        async for output in await stream.submit(submit):
            if output.HasField("error"):
                raise OrreryError(f"{submit.request_id}: {output.error.message}")
            now = perf_counter()
            if last is not None and output.token_ids:
                gaps.seen.append((now, now - last))
            last = now
        await asyncio.sleep(0)
