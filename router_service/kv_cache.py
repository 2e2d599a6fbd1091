"""The KV blocks of sequences: block tables, sharing and the prefix cache."""

from __future__ import annotations

from collections.abc import Iterable

from kimi_k2.latent_cache import BLOCK_SIZE
from router_service.block_pool import BlockPool
from router_service.prefix_cache import ROOT, PrefixCache, block_hash
from router_service.sequence import Sequence


def blocks_for(tokens: int) -> int:
    """Blocks that cover so many positions."""
    return -(-tokens // BLOCK_SIZE)


class KVCache:
    """Gives blocks to sequences and takes them back; the tensors themselves are the model's."""

    def __init__(self, num_blocks: int, *, prefix_cache: bool) -> None:
        self.pool = BlockPool(num_blocks)
        self._prefixes = PrefixCache() if prefix_cache else None

    def admit(self, seq: Sequence, *, reserve: int = 0) -> bool:
        """Gives `seq` blocks for all its tokens, cached ones first; false: not enough of them.

        At least one token is left to compute, since a logits row is needed.

        Args:
            reserve: blocks to leave available to others.
        """
        hits = self._match(seq)
        for block in hits:
            self.pool.share(block)
        needed = blocks_for(len(seq.tokens)) - len(hits)
        if needed + reserve > self.pool.available:
            self._release(hits)
            seq.block_hashes.clear()
            return False
        seq.block_table = hits + [self._take() for _ in range(needed)]
        seq.computed = len(hits) * BLOCK_SIZE
        return True

    def grow(self, seq: Sequence) -> bool:
        """Makes the block table cover all tokens of `seq`; false: not enough blocks."""
        needed = blocks_for(len(seq.tokens)) - len(seq.block_table)
        if needed > self.pool.available:
            return False
        seq.block_table.extend(self._take() for _ in range(needed))
        return True

    def publish(self, seq: Sequence) -> None:
        """Makes blocks findable that `seq` has computed to the end; never a partial one."""
        if self._prefixes is None:
            return
        for index in range(len(seq.block_hashes), seq.computed // BLOCK_SIZE):
            parent = seq.block_hashes[-1] if seq.block_hashes else ROOT
            tokens = seq.tokens[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE]
            seq.block_hashes.append(block_hash(parent, tokens))
            self._prefixes.publish(seq.block_hashes[-1], seq.block_table[index])

    def release(self, seq: Sequence) -> None:
        """Takes all blocks back; `seq` has to be computed again."""
        self._release(seq.block_table)
        seq.block_table = []
        seq.block_hashes = []
        seq.computed = 0

    def violations(self, sequences: Iterable[Sequence]) -> list[str]:
        """What is wrong with counts and maps, given every sequence that may hold blocks."""
        findable = self._prefixes.blocks if self._prefixes else set()
        found = self.pool.violations((seq.block_table for seq in sequences), findable)
        return found + (self._prefixes.violations() if self._prefixes else [])

    def _match(self, seq: Sequence) -> list[int]:
        hits: list[int] = []
        seq.block_hashes = []
        if self._prefixes is None:
            return hits
        parent = ROOT
        for index in range((len(seq.tokens) - 1) // BLOCK_SIZE):
            parent = block_hash(parent, seq.tokens[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE])
            block = self._prefixes.find(parent)
            if block is None:
                break
            seq.block_hashes.append(parent)
            hits.append(block)
        return hits

    def _take(self) -> int:
        block, evicted = self.pool.take()
        if evicted and self._prefixes is not None:
            self._prefixes.forget(block)
        return block

    def _release(self, blocks: list[int]) -> None:
        # The end of a chain first: it is useless once its beginning is gone.
        for block in reversed(blocks):
            keep = self._prefixes is not None and self._prefixes.knows(block)
            self.pool.release(block, keep=keep)
