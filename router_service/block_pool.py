"""Who uses which KV block."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class BlockPool:
    """Reference counts of the KV blocks, and the order in which idle ones are given away.

    A block is used (referenced), cached (idle, but its content can be found again) or free. The
    pool knows that a block is cached, the prefix cache knows what is in it.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        # Least recently used first.
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that `take` can give."""
        return len(self._free) + len(self._cached)

    @property
    def cached(self) -> int:
        return len(self._cached)

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        return self.num_blocks - self.available

    def take(self) -> tuple[int, bool]:
        """An idle block with one reference, and whether it was cached until now.

        A cached block that is given away is the least recently used one; whoever remembers its
        content has to forget it. Raises IndexError when nothing is available.
        """
        evicted = not self._free
        block = self._cached.popitem(last=False)[0] if evicted else self._free.pop()
        self._references[block] = 1
        return block, evicted

    def is_cached(self, block: int) -> bool:
        """Whether it is idle with findable content, so that sharing it leaves one less to take."""
        return block in self._cached

    def share(self, block: int) -> None:
        """One more reference to a used or cached block."""
        self._cached.pop(block, None)
        self._references[block] += 1

    def release(self, block: int, *, keep: bool) -> None:
        """One reference less; an idle block is cached if `keep`, else free."""
        self._references[block] -= 1
        if self._references[block] == 0:
            if keep:
                self._cached[block] = None
            else:
                self._free.append(block)

    def violations(self, tables: Iterable[Iterable[int]], findable: set[int]) -> list[str]:
        """What is wrong, given all block tables and the blocks that the prefix cache knows."""
        expected = [0] * self.num_blocks
        for table in tables:
            for block in table:
                expected[block] += 1
        free = set(self._free)
        found = [
            f"block {block} has {has} references, block tables hold {want}"
            for block, (has, want) in enumerate(zip(self._references, expected, strict=True))
            if has != want
        ]
        if len(free) != len(self._free):
            found.append("a block is in the free list twice")
        for block in range(self.num_blocks):
            states = (block in free) + (block in self._cached) + (self._references[block] > 0)
            if states != 1:
                found.append(f"block {block} is in {states} of the states free, cached and used")
            if block in self._cached and block not in findable:
                found.append(f"block {block} is cached but the prefix cache does not know it")
            if block in free and block in findable:
                found.append(f"block {block} is free but the prefix cache still knows it")
        return found
