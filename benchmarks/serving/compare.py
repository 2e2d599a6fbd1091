"""Interleaved rounds over all sides, and the ratios between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.serving.load import Answer, Ask, Side, batch
from benchmarks.serving.measures import Measures, measure
from benchmarks.serving.quiet import Moment, Quiet, until_quiet

Rounds = Mapping[tuple[str, int], Sequence[Measures]]

_WARM_TOKENS = 4
_BEGIN = 4


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every round asks: at each concurrency, so many tokens in and out."""

    concurrent: tuple[int, ...]
    prompt_tokens: int
    max_tokens: int
    rounds: int
    vocab_size: int


@dataclass(frozen=True, kw_only=True)
class Bar:
    """`over` tokens/s must be at least `least` times those of `under`."""

    over: str
    under: str
    concurrent: int
    least: float


BARS = (
    Bar(over="cluster", under="in-process", concurrent=32, least=0.7),
    Bar(over="cluster", under="vllm", concurrent=32, least=1.5),
    Bar(over="cluster", under="transformers", concurrent=32, least=4.0),
    Bar(over="cluster", under="vllm", concurrent=1, least=1.0),
    Bar(over="cluster", under="transformers", concurrent=1, least=1.0),
    Bar(over="cluster-http", under="cluster", concurrent=32, least=0.8),
)


async def compare(
    sides: Sequence[Side], work: Work, quiet: Quiet
) -> dict[tuple[str, int], list[Measures]]:
    """(side, concurrent) -> one entry a round.

    Within a round the sides take turns at each concurrency, and every second round goes through
    them backwards, so that what else the machine does hits all alike.
    """
    for side in sides:
        for concurrent in sorted({min(work.concurrent), max(work.concurrent)}):
            await side.run(_asks(work, concurrent, _WARM_TOKENS, "warm"))
    runs: dict[tuple[str, int], list[Measures]] = {}
    for number in range(work.rounds):
        turn = sides if number % 2 == 0 else list(reversed(sides))
        for concurrent in work.concurrent:
            asks = _asks(work, concurrent, work.max_tokens, f"round {number}")
            await _round(turn, asks, concurrent, runs, quiet)
    return runs


async def quietest(
    side: Side, asks: Sequence[Ask], quiet: Quiet
) -> tuple[Sequence[Answer], Measures]:
    """Of the runs that `quiet` allows, the one that others disturbed least."""
    best: tuple[Sequence[Answer], Measures] | None = None
    for _ in range(quiet.tries):
        await until_quiet(quiet)
        before = Moment.now()
        answers = await side.run(asks)
        found = measure(answers, others=before.others_since(), processor_s=before.own_since())
        if best is None or found.others < best[1].others:
            best = answers, found
        if found.others <= quiet.others:
            break
    assert best is not None
    return best


async def _round(
    sides: Sequence[Side],
    asks: Sequence[Ask],
    concurrent: int,
    runs: dict[tuple[str, int], list[Measures]],
    quiet: Quiet,
) -> None:
    first: Sequence[Answer] | None = None
    for side in sides:
        answers, found = await quietest(side, asks, quiet)
        runs.setdefault((side.name, concurrent), []).append(found)
        first = answers if first is None else first
        print(
            f"{side.name} at {concurrent}: {found.tokens_per_s:.1f} tokens/s, "
            f"{found.processor_ms:.2f} ms of processor a token "
            f"(others {found.others:.0%}{alike(first, answers)})",
            flush=True,
        )


def alike(reference: Sequence[Answer], answers: Sequence[Answer]) -> str:
    """How many answers begin as those of the first side; empty where ids are not told.

    Other kernels round otherwise, so greedy answers may part; that most begin alike shows that
    the same weights are at work.
    """
    if not all(answer.token_ids for answer in (*reference, *answers)):
        return ""
    pairs = zip(reference, answers, strict=True)
    same = sum(one.token_ids[:_BEGIN] == other.token_ids[:_BEGIN] for one, other in pairs)
    return f", {same} of {len(answers)} answers begin as the first side's"


def ratio(rounds: Rounds, over: str, under: str, concurrent: int) -> float | None:
    """The median over rounds of the ratio of tokens/s; None when a side was not measured."""
    pairs = zip(
        rounds.get((over, concurrent), ()), rounds.get((under, concurrent), ()), strict=False
    )
    found = [one.tokens_per_s / other.tokens_per_s for one, other in pairs]
    return median(found) if found else None


def _asks(work: Work, concurrent: int, max_tokens: int, seed: str) -> list[Ask]:
    return batch(
        concurrent,
        prompt_tokens=work.prompt_tokens,
        max_tokens=max_tokens,
        vocab_size=work.vocab_size,
        seed=f"{seed}, {concurrent}",
    )
