"""nano-K2's training scripts, imported as they import one another, and a dictionary for them."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support.checkpoints import NANO_K2

TRAINING = NANO_K2 / "training"
SYLLABLES = (
    *("ba", "con", "der", "fil", "gan", "hor", "ist", "jul", "kem", "lor"),
    *("mun", "nov", "pra", "quil", "ros", "sten", "tar", "ul", "vin", "wex"),
)


@pytest.fixture(scope="module")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """A training script by name; afterwards none of them is left in `sys.modules`."""
    sys.path.insert(0, str(TRAINING))
    yield importlib.import_module
    sys.path.remove(str(TRAINING))
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(TRAINING)):
            del sys.modules[name]


@pytest.fixture(scope="module")
def words(script: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """`words(seed, test=...)`: a source over some 1,500 invented words, enough for both splits."""
    entry, rng = script("wordnet").Entry, random.Random(0)
    made = sorted({"".join(rng.choices(SYLLABLES, k=rng.choice((2, 3)))) for _ in range(1900)})
    lexicon = [
        entry(
            word=word,
            part=("noun", "noun", "verb", "adjective")[number % 4],
            glosses=(f"what {word} stands for",),
            examples=(f"they saw the {word}",),
            synonyms=(made[number - 1],),
            parent=made[number - 2],
            count=9 if number % 3 else 1,
        )
        for number, word in enumerate(made)
        if 3 <= len(word) <= 11
    ]

    def make(seed: int, *, test: bool = False) -> Any:
        return script("words").Words.of(lexicon, seed, test)

    return make
