"""Outputs as the text in which stop strings are searched."""

from __future__ import annotations

from collections.abc import Iterable

from kimi_k2.detokenizer import IncrementalDetokenizer
from kimi_k2.tokenizer import Tokenizer


class VisibleText:
    """Incremental text of ordinary tokens.

    Control tokens give none, and neither do ids that only pad the model's vocabulary: the model
    may sample them, the tokenizer does not know them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._detokenizer = IncrementalDetokenizer(tokenizer, skip_special=True)

    def push(self, ids: Iterable[int]) -> str:
        """The text that these further ids make certain."""
        return self._detokenizer.push([index for index in ids if index in self._tokenizer])
