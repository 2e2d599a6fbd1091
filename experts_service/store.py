"""The experts that a worker holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kimi_k2.held_experts import HeldExperts, joined

Check = Callable[[], None]
LoadExperts = Callable[[int, Sequence[int]], HeldExperts]


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldLayer:
    """Experts of one layer; never changed, only replaced.

    experts: ascending logical ids, in slot order.
    ids: the same as a set.
    slots: int64 [n_routed_experts], logical id to slot; -1 where not held.
    """

    experts: tuple[int, ...]
    ids: frozenset[int]
    slots: NDArray[np.int64]
    weights: HeldExperts


class ExpertStore:
    """Layers of held experts, replaced whole, so that a reader needs no lock.

    `add` and `remove` may run in any thread, and wait for each other.
    """

    def __init__(self, n_routed_experts: int, load: LoadExperts) -> None:
        self._n_routed_experts = n_routed_experts
        self._load = load
        self._layers: dict[int, HeldLayer] = {}
        self._changing = threading.Lock()
        self._swapping = threading.Lock()

    def layer(self, layer: int) -> HeldLayer | None:
        return self._layers.get(layer)

    def held(self) -> dict[int, tuple[int, ...]]:
        """Layer to ascending experts. A change whose check was passed before is seen."""
        with self._swapping:
            layers = self._layers.copy()
        return {layer: held.experts for layer, held in sorted(layers.items())}

    @property
    def count(self) -> int:
        return sum(len(held.experts) for held in self._layers.copy().values())

    @property
    def nbytes(self) -> int:
        return sum(held.weights.nbytes for held in self._layers.copy().values())

    def add(self, layer: int, experts: Iterable[int], check: Check | None = None) -> None:
        """Loads those of the experts that are not held yet; side effect: reads the checkpoint.

        Args:
            check: raises if the experts are not wanted any more; asked before they are read, and
                again before they are held, since reading takes long.

        Raises:
            ModelError: the checkpoint's weights cannot be read.
        """
        with self._changing:
            old = self._layers.get(layer)
            held = () if old is None else old.experts
            new = sorted(set(experts) - set(held))
            if not new:
                return
            if check is not None:
                check()
            weights = self._load(layer, new)
            if old is not None:
                weights = joined(old.weights, weights)
            self._swap(layer, self._in_order((*held, *new), weights), check)

    def remove(self, layer: int, experts: Iterable[int], check: Check | None = None) -> None:
        """Drops those of the experts that are held; `check`: as in `add`."""
        with self._changing:
            old = self._layers.get(layer)
            if old is None:
                return
            gone = set(experts)
            kept = [slot for slot, e in enumerate(old.experts) if e not in gone]
            if not kept:
                self._swap(layer, None, check)
            elif len(kept) < len(old.experts):
                ids = tuple(old.experts[slot] for slot in kept)
                self._swap(layer, self._in_order(ids, _take(old.weights, kept)), check)

    def _swap(self, layer: int, held: HeldLayer | None, check: Check | None) -> None:
        with self._swapping:
            if check is not None:
                check()
            if held is None:
                del self._layers[layer]
            else:
                self._layers[layer] = held

    def _in_order(self, experts: tuple[int, ...], weights: HeldExperts) -> HeldLayer:
        order = sorted(range(len(experts)), key=experts.__getitem__)
        if order != list(range(len(experts))):
            weights = _take(weights, order)
            experts = tuple(experts[slot] for slot in order)
        slots = np.full(self._n_routed_experts, -1, np.int64)
        slots[list(experts)] = np.arange(len(experts))
        return HeldLayer(experts=experts, ids=frozenset(experts), slots=slots, weights=weights)


def _take(weights: HeldExperts, slots: list[int]) -> HeldExperts:
    index = torch.tensor(slots, device=weights.down.device)
    return weights.take(index)
