"""Token ids to text as they arrive, one request at a time."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from kimi_k2.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """Gives out text as soon as it is certain.

    Tokens are bytes, not characters: a character may span tokens. Bytes of a character that is not
    complete yet are held back; bytes that can never become a character are U+FFFD, as in
    `Tokenizer.decode`. What all calls gave out, joined, is the `decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        """Args:
        skip_special: control tokens give no text, and neither do ids that only pad the model's
            vocabulary, which the tokenizer does not know.
        """
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Iterable[int]) -> str:
        """The text that these further ids make certain.

        Raises:
            TokenizerError: an id outside the vocabulary, unless special ones are skipped.
        """
        if self._skip_special:
            known = self._tokenizer
            ids = [index for index in ids if index in known and not known.is_special(index)]
        return self._decoder.decode(self._tokenizer.decode_bytes(ids))

    def finish(self) -> str:
        """What was held back, an incomplete character as U+FFFD. Then ready for a new text."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
