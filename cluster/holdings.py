"""Sets of experts by layer, and who owns what, as plain values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

Experts: TypeAlias = Mapping[int, Sequence[int]]
"""Layer to ascending logical experts; a layer without any is left out."""
Owners: TypeAlias = Mapping[int, tuple[tuple[str, ...], ...]]
"""Layer to the owners of each logical expert."""


def plus(experts: Experts, more: Experts) -> Experts:
    """Those of either."""
    return {
        layer: tuple(sorted({*experts.get(layer, ()), *more.get(layer, ())}))
        for layer in sorted({*experts, *more})
    }


def minus(experts: Experts, less: Experts) -> Experts:
    """Those of the first that are not of the second.

    >>> minus({1: (0, 1), 2: (5,)}, {1: (1,), 2: (5, 6)})
    {1: (0,)}
    """
    left = {
        layer: tuple(e for e in ids if e not in gone)
        for layer, ids in experts.items()
        for gone in [frozenset(less.get(layer, ()))]
    }
    return {layer: ids for layer, ids in left.items() if ids}


def count(experts: Experts) -> int:
    return sum(len(ids) for ids in experts.values())


def owned(owners: Owners) -> dict[str, dict[int, tuple[int, ...]]]:
    """Worker id to what it owns; those that own nothing are not in it.

    >>> owned({1: (("a",), ("a", "b"))})
    {'a': {1: (0, 1)}, 'b': {1: (1,)}}
    """
    found: dict[str, dict[int, list[int]]] = {}
    for layer, experts in sorted(owners.items()):
        for expert, ids in enumerate(experts):
            for worker in ids:
                found.setdefault(worker, {}).setdefault(layer, []).append(expert)
    return {
        worker: {layer: tuple(ids) for layer, ids in layers.items()}
        for worker, layers in found.items()
    }


def owners_with(owners: Owners, worker: str, experts: Experts) -> Owners:
    """The owners with `worker` among those of `experts`."""
    changed = {}
    for layer, ids in owners.items():
        new = frozenset(experts.get(layer, ()))
        changed[layer] = tuple(
            (*known, worker) if expert in new and worker not in known else known
            for expert, known in enumerate(ids)
        )
    return changed


def owners_without(owners: Owners, gone: Collection[str]) -> Owners:
    """The owners without those workers."""
    return {
        layer: tuple(tuple(w for w in ids if w not in gone) for ids in experts)
        for layer, experts in owners.items()
    }


def trim(owners: Owners, loose: Owners, redundant: int | str) -> Owners:
    """The owners with no more copies in a layer than are wanted.

    A copy too many goes from the worker with the most copies of all, so that one that has come
    back with its experts relieves those that stood in for it.

    Args:
        loose: the copies that this is about: only their experts lose any.
        redundant: copies in each layer besides the first ones, or `twice`.
    """
    load: dict[str, int] = {}
    for experts in owners.values():
        for ids in experts:
            for worker in ids:
                load[worker] = load.get(worker, 0) + 1
    trimmed: dict[int, tuple[tuple[str, ...], ...]] = {}
    for layer, experts in owners.items():
        left = list(experts)
        size = len(left)
        least = 2 if redundant == "twice" else 1
        wanted = 2 * size if redundant == "twice" else size + int(redundant)
        surplus = sum(map(len, left)) - wanted
        while surplus > 0:
            free = [e for e in range(size) if loose[layer][e] and len(left[e]) > least]
            if not free:
                break
            expert = max(free, key=lambda e: (max(load[w] for w in left[e]), len(left[e]), -e))
            fullest = max(left[expert], key=lambda w: (load[w], w not in loose[layer][expert], w))
            left[expert] = tuple(w for w in left[expert] if w != fullest)
            load[fullest] -= 1
            surplus -= 1
        trimmed[layer] = tuple(left)
    return trimmed
