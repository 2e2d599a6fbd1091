"""Threads that take parts of one computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class Team:
    """The caller and its helpers. The parts have to release the interpreter lock, as compiled
    functions do, or they run one after another."""

    def __init__(self, threads: int) -> None:
        """`threads`: the caller's among them; helpers start when they are first needed."""
        self.size = max(1, threads)
        self._helpers = (
            ThreadPoolExecutor(self.size - 1, thread_name_prefix="arithmetic")
            if self.size > 1
            else None
        )

    def run(self, parts: Sequence[Callable[[], _T]]) -> list[_T]:
        """What the parts return, in their order; the first is the caller's.

        Returns, or raises what a part has raised, only when every part has ended.
        """
        if self._helpers is None or len(parts) == 1:
            return [part() for part in parts]
        others = [self._helpers.submit(part) for part in parts[1:]]
        try:
            mine = parts[0]()
        finally:
            for other in others:
                other.exception()
        return [mine, *(other.result() for other in others)]
