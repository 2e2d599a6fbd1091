"""The decode steps of a router while all its streams run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import psutil

from benchmarks.serving.grpc_side import greedy
from benchmarks.serving.load import Ask
from wire.clients.generate import GenerateStream
from wire.errors import OrreryError


@dataclass(frozen=True, kw_only=True)
class Steady:
    """Seconds for a token of every stream, and the processor seconds of each process meanwhile."""

    step_s: float
    processor_s: Mapping[str, float]


@dataclass(frozen=True)
class _Moment:
    at_s: float
    tokens: int
    processor_s: Mapping[str, float]


class _Window:
    """From when the last stream has its first token until the first one has its last."""

    def __init__(
        self,
        streams: int,
        processes: Mapping[str, psutil.Process],
        at_ends: Callable[[], None],
    ) -> None:
        self._at_ends = at_ends
        self._waiting = streams
        self._processes = processes
        self._tokens = 0
        self.began: _Moment | None = None
        self.ended: _Moment | None = None

    def first(self) -> None:
        self._waiting -= 1
        if self._waiting == 0:
            self.began = self._now()

    def token(self) -> None:
        self._tokens += 1

    def last(self) -> None:
        if self.ended is None:
            self.ended = self._now()

    def _now(self) -> _Moment:
        self._at_ends()
        spent = {name: sum(process.cpu_times()[:2]) for name, process in self._processes.items()}
        return _Moment(perf_counter(), self._tokens, spent)


async def steady(
    stream: GenerateStream,
    asks: Sequence[Ask],
    processes: Mapping[str, psutil.Process],
    prefix: str,
    at_ends: Callable[[], None] = lambda: None,
) -> Steady:
    """Prefill and the ends of the streams are left out.

    Args:
        prefix: of the request ids; another one for each call on a stream.
        at_ends: called when the steady part begins and when it ends.

    Raises:
        OrreryError: a request failed, or answers are so short that streams never all ran.
    """
    window = _Window(len(asks), processes, at_ends)

    async def one(number: int, ask: Ask) -> None:
        count = 0
        async for output in await stream.submit(greedy(f"{prefix}-{number}", ask)):
            if output.HasField("error"):
                raise OrreryError(output.error.message)
            for _ in output.token_ids:
                window.token()
                count += 1
                if count == 1:
                    window.first()
                if count == ask.max_tokens:
                    window.last()

    await asyncio.gather(*(one(number, ask) for number, ask in enumerate(asks)))
    began, ended = window.began, window.ended
    if began is None or ended is None or ended.at_s <= began.at_s:
        raise OrreryError("the streams never all ran at a time; ask for longer answers")
    steps = (ended.tokens - began.tokens) / len(asks)
    return Steady(
        step_s=(ended.at_s - began.at_s) / steps,
        processor_s={
            name: (spent - began.processor_s[name]) / steps
            for name, spent in ended.processor_s.items()
        },
    )
