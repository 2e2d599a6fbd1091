"""What a worker holds stays right while experts come and go."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from experts_service.store import ExpertStore
from kimi_k2.expert_weights import ExpertWeights
from wire.errors import StaleEpochError

EXPERTS = 8


def weights_of(layer: int, experts: Sequence[int]) -> ExpertWeights:
    """Weights that tell whose they are."""
    marks = torch.tensor([100.0 * layer + e for e in experts])
    return ExpertWeights(
        gate_up=marks[:, None, None].expand(-1, 4, 2).clone(),
        down=marks[:, None, None].expand(-1, 2, 2).clone(),
    )


def check(store: ExpertStore, layer: int, experts: list[int]) -> None:
    held = store.layer(layer)
    assert held is not None
    assert list(held.experts) == experts
    for expert in range(EXPERTS):
        slot = int(held.slots[expert])
        assert (slot >= 0) == (expert in experts)
        if slot >= 0:
            assert held.weights.gate_up[slot, 0, 0] == 100 * layer + expert
            assert held.weights.down[slot, 0, 0] == 100 * layer + expert


def test_add_and_remove() -> None:
    loaded: list[tuple[int, list[int]]] = []

    def load(layer: int, experts: Sequence[int]) -> ExpertWeights:
        loaded.append((layer, list(experts)))
        return weights_of(layer, experts)

    store = ExpertStore(EXPERTS, load)
    assert store.layer(1) is None
    store.add(1, [5, 2])
    check(store, 1, [2, 5])
    store.add(1, [5, 3, 0])
    check(store, 1, [0, 2, 3, 5])
    store.add(2, [7])
    store.remove(1, [2, 6])
    check(store, 1, [0, 3, 5])
    store.add(1, [2])
    check(store, 1, [0, 2, 3, 5])
    store.remove(2, range(EXPERTS))
    assert store.layer(2) is None
    store.remove(2, [1])
    assert loaded == [(1, [2, 5]), (1, [0, 3]), (2, [7]), (1, [2])]
    assert store.held() == {1: (0, 2, 3, 5)}
    assert store.count == 4
    assert store.nbytes == 4 * (8 + 4) * 4


def test_a_reader_keeps_the_layer_it_took() -> None:
    store = ExpertStore(EXPERTS, weights_of)
    store.add(1, [0, 1])
    before = store.layer(1)
    store.remove(1, [0])
    assert before is not None
    assert before.experts == (0, 1)
    assert before.weights.gate_up[0, 0, 0] == 100


def test_what_is_not_wanted_any_more_when_it_comes_to_it_does_not_happen() -> None:
    def refuse() -> None:
        raise StaleEpochError("too late")

    store = ExpertStore(EXPERTS, weights_of)
    store.add(1, [0, 1])
    for change in (store.add, store.remove):
        with pytest.raises(StaleEpochError):
            change(1, [1, 2], refuse)
    with pytest.raises(StaleEpochError):
        store.remove(1, [0, 1], refuse)
    check(store, 1, [0, 1])
