"""Sixteen clients that never stop asking, and hold every token against the undisturbed answer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from benchmarks.failover.gaps import Gap, gaps_of
from benchmarks.failover.ways import Piece, Way
from benchmarks.failover.wishes import CLIENTS, SEED, Wish
from wire.errors import OrreryError

TOKENS = 128
LEAST_TOKENS = 32
_LAST_ANSWERS_S = 120.0

Answers = Mapping[Wish, Sequence[Piece]]


@dataclass(kw_only=True, eq=False)
class Told:
    """What one request brought; `times` of its tokens, on `time.perf_counter`.

    error: why it failed; empty: it did not. ended: no more will come.
    """

    wish: Wish
    tokens: int
    sent: float
    pieces: list[Piece] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    error: str = ""
    ended: float = 0.0


class Clients:
    """Each asks for wish after wish until told to stop, each for some number of tokens."""

    def __init__(
        self, make: Callable[[], Way], asked: Sequence[Wish], least: int = LEAST_TOKENS
    ) -> None:
        """`least`: tokens that an answer has; the most are `TOKENS`."""
        self._make = make
        self._wishes = asked
        self._least = least
        self._stopping = False
        self.told: list[Told] = []
        self.begun = 0.0

    def undisturbed(self) -> Answers:
        """Every wish once, all together, to its full length."""

        async def ask() -> Answers:
            async with _open(self._make) as way:
                told = [Told(wish=w, tokens=TOKENS, sent=time.perf_counter()) for w in self._wishes]
                await asyncio.gather(
                    *(_one(way, f"undisturbed-{n}", t) for n, t in enumerate(told))
                )
            wrong = [t.error for t in told if t.error]
            assert not wrong, wrong
            return {t.wish: tuple(t.pieces) for t in told}

        return asyncio.run(ask())

    @contextlib.contextmanager
    def streaming(self) -> Iterator[Clients]:
        """They ask in a thread of their own; when the context is left they let what runs finish."""
        self.begun = time.perf_counter()
        with ThreadPoolExecutor(1, "clients") as threads:
            work = threads.submit(asyncio.run, self._all())
            try:
                yield self
            finally:
                self._stopping = True
                work.result(_LAST_ANSWERS_S)

    def between(self, begun: float, ended: float) -> list[Told]:
        """Requests that ended within the time."""
        return [told for told in self.told if told.ended and begun <= told.ended <= ended]

    @property
    def tokens(self) -> int:
        return sum(len(told.times) for told in self.told)

    @property
    def failed(self) -> list[Told]:
        return [told for told in self.told if told.error]

    @property
    def gaps(self) -> list[Gap]:
        return gaps_of([told.times for told in self.told])

    def moving(self, seconds: float) -> int:
        """How many streams have brought a token within the last `seconds`."""
        since = time.perf_counter() - seconds
        return sum(
            bool(told.times) and told.times[-1] >= since for told in self.told if not told.ended
        )

    def check(self, answers: Answers) -> None:
        """Every request ended well, with the tokens of the undisturbed run, none lost or twice."""
        assert self.told
        errors = [told.error for told in self.failed]
        assert not errors, f"{len(errors)} of {len(self.told)} requests failed: {errors[:3]}"
        self.check_tokens(answers)
        short = [told for told in self.told if len(told.pieces) != told.tokens]
        assert not short, f"{len(short)} answers have another length than was asked for"

    def check_tokens(self, answers: Answers) -> None:
        """What came is how the undisturbed answers begin, also of requests that failed later."""
        other = self.other_than(answers)
        assert not other, f"{len(other)} of {len(self.told)} answers differ"

    def other_than(self, answers: Answers) -> list[Told]:
        """Those that do not begin as the undisturbed answers do."""
        return [t for t in self.told if list(answers[t.wish][: len(t.pieces)]) != t.pieces]

    async def _all(self) -> None:
        async with _open(self._make) as way:
            await asyncio.gather(*(self._client(way, n) for n in range(CLIENTS)))

    async def _client(self, way: Way, number: int) -> None:
        draw = random.Random(f"{SEED}-{number}")
        count = 0
        while not self._stopping:
            told = Told(
                wish=self._wishes[(number + count) % len(self._wishes)],
                tokens=draw.randint(self._least, TOKENS),
                sent=time.perf_counter(),
            )
            self.told.append(told)
            await _one(way, f"{number}-{count}-{id(self)}", told)
            if told.error:
                # A router that is gone refuses at once; nobody wants a thousand refusals.
                await asyncio.sleep(0.2)
            count += 1


@contextlib.asynccontextmanager
async def _open(make: Callable[[], Way]) -> AsyncIterator[Way]:
    way = make()
    try:
        yield way
    finally:
        await way.close()


async def _one(way: Way, request_id: str, told: Told) -> None:
    try:
        async for pieces in way.ask(request_id, told.wish, told.tokens):
            now = time.perf_counter()
            told.pieces += pieces
            told.times += [now] * len(pieces)
    except (OrreryError, httpx.HTTPError) as error:
        told.error = f"{type(error).__name__}: {error}"
    finally:
        told.ended = time.perf_counter()
