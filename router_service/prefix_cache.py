"""Finds KV blocks by the tokens that they and all blocks before them hold."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

ROOT = b""


def block_hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Names one full block: its tokens and, through `parent`, everything before it.

    Cryptographic, since a collision would hand one user another one's context.
    """
    return hashlib.blake2b(parent + array("I", tokens).tobytes(), digest_size=16).digest()


class PrefixCache:
    """Two maps that mirror each other: hash to block and block to hash."""

    def __init__(self) -> None:
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}

    def find(self, name: bytes) -> int | None:
        return self._block_of.get(name)

    def knows(self, block: int) -> bool:
        return block in self._hash_of

    def publish(self, name: bytes, block: int) -> None:
        """Makes `block` findable, unless another block has the same content already."""
        if name not in self._block_of and block not in self._hash_of:
            self._block_of[name] = block
            self._hash_of[block] = name

    def forget(self, block: int) -> None:
        del self._block_of[self._hash_of.pop(block)]

    @property
    def blocks(self) -> set[int]:
        return set(self._hash_of)

    def violations(self) -> list[str]:
        if len(self._block_of) != len(self._hash_of):
            return [f"{len(self._block_of)} hashes name {len(self._hash_of)} blocks"]
        return [
            f"block {block} is not found by its own hash"
            for block, name in self._hash_of.items()
            if self._block_of.get(name) != block
        ]
