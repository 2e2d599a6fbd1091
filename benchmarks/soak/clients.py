"""Clients that ask for random things and sometimes leave."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from benchmarks.serving.load import ORDINARY
from wire.clients.generate import GenerateStream
from wire.errors import OrreryError
from wire.generated import orrery_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class Habits:
    """Lengths are drawn evenly on a logarithmic scale, so that short ones are the most.

    aborted: share of the requests that are ended in the middle of their answer.
    shared: share of the requests whose prompts begin alike, for the prefix cache.
    sampled: share of the requests that draw their tokens with a seed and a temperature.
    """

    most_in: int = 400
    most_out: int = 200
    aborted: float = 0.2
    shared: float = 0.3
    sampled: float = 0.5


@dataclass(kw_only=True)
class Tally:
    """What came back from all clients so far."""

    tokens: int = 0
    finished: int = 0
    aborted: int = 0


class Client:
    """Sends one request after another on a stream that it shares, until it is cancelled."""

    def __init__(
        self, name: str, stream: GenerateStream, vocab_size: int, habits: Habits, tally: Tally
    ) -> None:
        self._name = name
        self._stream = stream
        self._highest = int(vocab_size * ORDINARY)
        self._habits = habits
        self._tally = tally
        self._draw = random.Random(name)

    async def run(self) -> None:
        """Raises `OrreryError` when a request ends in any other way than it should."""
        number = 0
        while True:
            await self._one(f"{self._name}-{number}")
            number += 1

    async def _one(self, request_id: str) -> None:
        draw, habits = self._draw, self._habits
        most = self._length(habits.most_out)
        leave_after = draw.randrange(most) if draw.random() < habits.aborted else None
        wanted = pb.Submit(
            request_id=request_id,
            prompt_token_ids=self._prompt(self._length(habits.most_in)),
            sampling=self._sampling(most),
        )
        count = 0
        left = False
        async for output in await self._stream.submit(wanted):
            if output.HasField("error"):
                raise OrreryError(f"{request_id}: {output.error.message}")
            count += len(output.token_ids)
            self._tally.tokens += len(output.token_ids)
            if leave_after is not None and not left and count > leave_after:
                left = True
                await self._stream.abort(request_id)
        self._tally.aborted += left
        self._tally.finished += not left
        if not left and count != most:
            raise OrreryError(f"{request_id} ended with {count} of {most} tokens")
        # So that clients do not march in step.
        await asyncio.sleep(draw.random() * 0.02)

    def _length(self, most: int) -> int:
        return round(most ** self._draw.random())

    def _prompt(self, length: int) -> list[int]:
        if self._draw.random() < self._habits.shared:
            return [(7 * place) % self._highest for place in range(length)]
        return [self._draw.randrange(self._highest) for _ in range(length)]

    def _sampling(self, most: int) -> pb.SamplingParams:
        sampled = self._draw.random() < self._habits.sampled
        return pb.SamplingParams(
            temperature=0.8 if sampled else 0.0,
            top_p=0.95 if sampled else 1.0,
            repetition_penalty=1.0,
            seed=self._draw.randrange(1 << 32),
            max_tokens=most,
            ignore_eos=True,
        )
