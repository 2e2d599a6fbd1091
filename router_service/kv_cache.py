"""The KV blocks of sequences: block tables, sharing and the prefix cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kimi_k2.latent_cache import BLOCK_SIZE
from router_service.block_pool import BlockPool
from router_service.prefix_cache import ROOT, PrefixCache, block_hash
from router_service.sequence import Sequence


def blocks_for(tokens: int) -> int:
    """Blocks that cover so many positions."""
    return -(-tokens // BLOCK_SIZE)


class KVCache:
    """Gives blocks to sequences and takes them back; the tensors themselves are the model's."""

    def __init__(
        self, num_blocks: int, *, prefix_cache: bool, wipe: Callable[[int], None] | None = None
    ) -> None:
        """`wipe`: makes the content of a block finite again."""
        self.pool = BlockPool(num_blocks)
        self._prefixes = PrefixCache() if prefix_cache else None
        self._wipe = wipe
        self._tainted: set[int] = set()
        self._root = ROOT

    def admit(self, seq: Sequence, *, reserve: int = 0) -> bool:
        """Gives `seq` blocks for all its tokens, cached ones first; false: not enough of them.

        At least one token is left to compute, since a logits row is needed.

        Args:
            reserve: blocks to leave available to others.
        """
        hits = self._match(seq)
        needed = blocks_for(len(seq.tokens)) - len(hits)
        # Tried again at every step while it does not fit: found out without touching a block.
        if needed + reserve > self.pool.available - sum(map(self.pool.is_cached, hits)):
            return False
        for block in hits:
            self.pool.share(block)
        seq.block_hashes = seq.block_names[: len(hits)]
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
            seq.block_hashes.append(_name(seq, index))
            self._prefixes.publish(seq.block_hashes[-1], seq.block_table[index])

    def release(self, seq: Sequence) -> None:
        """Takes all blocks back; `seq` has to be computed again."""
        self._release(seq.block_table)
        seq.block_table = []
        seq.block_hashes = []
        seq.computed = 0

    def taint(self, blocks: Iterable[int]) -> None:
        """Notes that blocks may hold what is not finite: wiped before somebody else gets them.

        Attention gives keys that a row must not see a weight of zero, and zero times a number that
        is not finite would reach whoever has the block next. They are nobody's but their
        sequence's, since a block is published only once all of it is computed.
        """
        self._tainted.update(blocks)

    def distrust(self) -> None:
        """Has nothing that was computed until now found again, as it may rest on wrong answers.

        Names begin anew, so that those of the blocks there are lead nowhere and the least recently
        used go first as ever. What running sequences compute is still named the old way.
        """
        self._root = block_hash(self._root, ())

    def violations(self, sequences: Iterable[Sequence]) -> list[str]:
        """What is wrong with counts and maps, given every sequence that may hold blocks."""
        findable = self._prefixes.blocks if self._prefixes else set()
        found = self.pool.violations((seq.block_table for seq in sequences), findable)
        tainted = sorted(self._tainted & findable)
        found += [f"block {block} is tainted, but the prefix cache knows it" for block in tainted]
        return found + (self._prefixes.violations() if self._prefixes else [])

    def _match(self, seq: Sequence) -> list[int]:
        """The blocks of the longest known beginning of `seq`, its last token left out."""
        hits: list[int] = []
        if self._prefixes is None:
            return hits
        if seq.names_root != self._root:
            seq.names_root, seq.block_names = self._root, []
        for index in range((len(seq.tokens) - 1) // BLOCK_SIZE):
            block = self._prefixes.find(_name(seq, index))
            if block is None:
                break
            hits.append(block)
        return hits

    def _take(self) -> int:
        block, evicted = self.pool.take()
        if evicted and self._prefixes is not None:
            self._prefixes.forget(block)
        if block in self._tainted:
            self._tainted.remove(block)
            if self._wipe is not None:
                self._wipe(block)
        return block

    def _release(self, blocks: list[int]) -> None:
        # The end of a chain first: it is useless once its beginning is gone.
        for block in reversed(blocks):
            keep = self._prefixes is not None and self._prefixes.knows(block)
            self.pool.release(block, keep=keep)


def _name(seq: Sequence, index: int) -> bytes:
    """The name of the full block number `index` of `seq`; hashes each block once."""
    names = seq.block_names
    for number in range(len(names), index + 1):
        tokens = seq.tokens[number * BLOCK_SIZE : (number + 1) * BLOCK_SIZE]
        names.append(block_hash(names[-1] if names else seq.names_root, tokens))
    return names[index]
