"""How an engine in a process of its own is asked: lines of JSON on standard input and output.

This file and the engines beside it use the standard library only, besides the engine: they run in
virtual environments that do not hold ours.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

Ask = dict[str, Any]
Answer = dict[str, Any]


def take_output() -> TextIO:
    """Standard output for the replies alone; what libraries print goes to standard error."""
    own = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return own


def answer_all(
    out: TextIO, versions: dict[str, str], run: Callable[[list[Ask]], list[Answer]]
) -> None:
    """Says that the engine is ready, then answers each line until standard input ends.

    An ask has prompt, max_tokens and at_s; an answer sent_s and tokens_s, on a clock of its own.
    """
    print(json.dumps({"event": "ready", "versions": versions}), file=out)
    for asks in _lines():
        print(json.dumps({"answers": run(asks)}), file=out)


def _lines() -> Iterator[list[Ask]]:
    for line in sys.stdin:
        yield json.loads(line)["asks"]
