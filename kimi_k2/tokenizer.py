"""K2's byte-level BPE, read from a checkpoint directory.

The vocabulary is tiktoken's file format (`tiktoken.model`), the control tokens are
`added_tokens_decoder` of `tokenizer_config.json`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import tiktoken

from kimi_k2.errors import TokenizerError

# `pat_str` of Kimi K2's tokenization code, for checkpoints whose tokenizer_config.json has none.
_K2_PATTERN = "|".join(
    (
        r"[\p{Han}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)

# The limits of K2's own tokenization code. Keeping to them is what makes long inputs encode to the
# ids that the model was trained on; they also bound the regular expression's stack.
_MAX_CHARS_PER_CALL = 400_000
_MAX_RUN = 25_000
# Tried only where a run begins: elsewhere each character of a run would scan the rest of it.
_LONG_RUN = re.compile(rf"(?<!\s)\s{{{_MAX_RUN + 1},}}|(?<!\S)\S{{{_MAX_RUN + 1},}}")


class Tokenizer:
    """Text to token ids and back. Immutable, so safe to share between threads."""

    def __init__(
        self, ranks: Mapping[bytes, int], specials: Mapping[str, int], *, pattern: str = _K2_PATTERN
    ) -> None:
        """Args:
        ranks: token bytes to id, ids 0 to len(ranks) - 1; all 256 single bytes among them.
        specials: text of each control token to its id.
        pattern: regular expression that splits text before the merges.

        Raises:
            TokenizerError: ids overlap or a single byte is missing.
        """
        if sorted(ranks.values()) != list(range(len(ranks))):
            raise TokenizerError(f"ranks are not 0 to {len(ranks) - 1} without gaps")
        if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
            raise TokenizerError(f"no token for the single byte {missing[0]}")
        if taken := sorted(set(specials.values()) & set(ranks.values())):
            raise TokenizerError(f"id {taken[0]} is both an ordinary and a special token")
        if len(set(specials.values())) != len(specials) or not all(specials):
            raise TokenizerError("special tokens must be non-empty and have ids of their own")
        self.specials: Mapping[str, int] = dict(specials)
        self.vocab_size = max([len(ranks) - 1, *specials.values()]) + 1
        self._special_ids = frozenset(specials.values())
        try:
            self._encoding = tiktoken.Encoding(
                "kimi-k2", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={}
            )
        except ValueError as error:
            raise TokenizerError(f"tiktoken refuses the vocabulary: {error}") from error
        self._bytes = {index: token for token, index in ranks.items()}
        self._bytes.update({index: text.encode() for text, index in specials.items()})
        longest_first = sorted(specials, key=len, reverse=True)
        self._special_re = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @classmethod
    def from_dir(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a checkpoint directory.

        Raises:
            TokenizerError: a file is missing or malformed; the message names it.
        """
        folder = Path(path)
        config_path = folder / "tokenizer_config.json"
        try:
            config = json.loads(config_path.read_text(encoding="utf-8"))
            added = {row["content"]: int(i) for i, row in config["added_tokens_decoder"].items()}
        except OSError as error:
            raise TokenizerError(f"cannot read {config_path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TokenizerError(f"{config_path} is malformed: {error!r}") from error
        ranks = read_ranks(folder / "tiktoken.model")
        named = set(added.values())
        # Real K2 checkpoints name only some of their reserved ids; the others exist all the same.
        reserved = [i for i in range(len(ranks), max(named, default=0)) if i not in named]
        specials = added | {f"<|reserved_token_{i}|>": i for i in reserved}
        return cls(ranks, specials, pattern=config.get("pat_str") or _K2_PATTERN)

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text: the text of a control token is encoded as the letters it is."""
        return [token for piece in _pieces(text) for token in self._encoding.encode_ordinary(piece)]

    def encode_with_special(self, text: str) -> list[int]:
        """Ids of text in which a control token's text means that token. Never for user input."""
        ids: list[int] = []
        start = 0
        for match in self._special_re.finditer(text):
            ids += self.encode(text[start : match.start()])
            ids.append(self.specials[match.group()])
            start = match.end()
        return ids + self.encode(text[start:])

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids; control tokens give their text.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        try:
            return b"".join([self._bytes[index] for index in ids])
        except KeyError as error:
            raise TokenizerError(f"token id {error} is not in the vocabulary") from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def special_id(self, name: str) -> int:
        """The id of a control token.

        Raises:
            TokenizerError: there is no such control token.
        """
        if name not in self.specials:
            raise TokenizerError(f"the tokenizer has no special token {name!r}")
        return self.specials[name]

    def is_special(self, index: int) -> bool:
        """Whether the id is a control token, such as `<|im_end|>` or `<think>`."""
        return index in self._special_ids

    def __contains__(self, index: object) -> bool:
        return index in self._bytes


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token bytes to rank, from a file of lines `base64 rank`.

    Raises:
        TokenizerError: the file is missing or a line is malformed.
    """
    ranks: dict[bytes, int] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise TokenizerError(f"{path}, line {number}: expected 'base64 rank'") from error
    return ranks


def _pieces(text: str) -> Iterator[str]:
    """The text cut as K2's own code cuts it: at 400,000 characters, and runs at 25,000."""
    for start in range(0, len(text), _MAX_CHARS_PER_CALL):
        chunk = text[start : start + _MAX_CHARS_PER_CALL]
        cut = 0
        for match in _LONG_RUN.finditer(chunk):
            # All full pieces of the run are cut off; its remainder goes on with what follows.
            for end in range(match.start() + _MAX_RUN, match.end(), _MAX_RUN):
                yield chunk[cut:end]
                cut = end
        yield chunk[cut:]
