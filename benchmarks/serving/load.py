"""What is asked of every side of a comparison, and what is noted of its answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

# Ids above belong to control tokens in the models we serve; a prompt of text has none.
ORDINARY = 0.9


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request: greedy, never stopped before `max_tokens`.

    at_s: when it arrives, in seconds after the run began.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    at_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Seconds on one clock: when the request was sent and when each of its tokens came.

    token_ids: what was answered; empty where the side does not tell.
    """

    sent_s: float
    tokens_s: tuple[float, ...]
    token_ids: tuple[int, ...] = ()


class Side(Protocol):
    """One of the things that are compared, started and idle until it is asked."""

    @property
    def name(self) -> str: ...

    @property
    def versions(self) -> Mapping[str, str]: ...

    @property
    def takes_arrivals(self) -> bool:
        """Whether requests may come while others run; else they must all come together."""
        ...

    async def run(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answers in the order of the asks; raises what went wrong."""
        ...


def batch(
    concurrent: int, *, prompt_tokens: int, max_tokens: int, vocab_size: int, seed: str
) -> list[Ask]:
    """Requests that arrive together. Other seeds share no prefix, so that no cache helps."""
    draw = random.Random(seed)
    highest = int(vocab_size * ORDINARY)
    return [
        Ask(
            prompt=tuple(draw.randrange(highest) for _ in range(prompt_tokens)),
            max_tokens=max_tokens,
        )
        for _ in range(concurrent)
    ]
