"""The shape of a placement: groups of layers, each shared by some workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Grid:
    """`shards[g]` workers share the experts of each layer of group `g`.

    (4,) is expert-major over 4 workers, (1, 1, 1, 1) layer-major, (2, 2) between; (2, 1) uses 3
    workers unevenly: the first group of layers, the larger one, is split in two.
    """

    shards: tuple[int, ...]

    @property
    def workers(self) -> int:
        return sum(self.shards)

    def __str__(self) -> str:
        """`2x2` is 2 layer groups of 2 workers; uneven ones are written as sizes, `2+1`."""
        if len(set(self.shards)) == 1:
            return f"{len(self.shards)}x{self.shards[0]}"
        return "+".join(map(str, self.shards))


def parse_grid(text: str, workers: int) -> Grid:
    """The grid that a config names, for so many workers.

    >>> str(parse_grid("layer-major", 3)), str(parse_grid("expert-major", 3))
    ('3x1', '1x3')
    >>> parse_grid("2x2", 4).shards, parse_grid("2+1", 3).shards
    ((2, 2), (2, 1))

    Raises:
        ValueError: not a grid.
    """
    if text == "expert-major":
        return Grid(shards=(workers,))
    if text == "layer-major":
        return Grid(shards=(1,) * workers)
    if "x" in text:
        groups, shards = text.split("x")
        return Grid(shards=(int(shards),) * int(groups))
    return Grid(shards=tuple(int(size) for size in text.split("+")))


def grids(workers: int, layers: int, experts: int) -> list[Grid]:
    """Every way to form as even groups as possible, most groups last.

    >>> [str(grid) for grid in grids(4, layers=4, experts=384)]
    ['1x4', '2x2', '2+1+1', '4x1']
    >>> [str(grid) for grid in grids(3, layers=60, experts=2)]
    ['2+1', '3x1']
    """
    found = []
    for groups in range(1, min(workers, layers) + 1):
        size, larger = divmod(workers, groups)
        shards = (size + 1,) * larger + (size,) * (groups - larger)
        if max(shards) <= experts:
            found.append(Grid(shards=shards))
    return found
