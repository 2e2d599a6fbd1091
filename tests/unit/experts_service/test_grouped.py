"""Requests of several routers in one computation, against torch and against each alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from experts_service.grouped import compute
from experts_service.store import ExpertStore, HeldLayer
from kimi_k2.arithmetic import Numerics
from kimi_k2.checkpoint import Checkpoint
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.held_experts import held_experts
from kimi_k2.numerics import prove_numerics
from kimi_k2.packed_experts import PackedExperts
from tests.support.checkpoints import write_random_checkpoint
from tests.support.models import unproven_numerics
from wire.codec import decode_request, encode_request
from wire.frames import DispatchRequest
from wire.placement import Epoch

HELD = (0, 2, 3, 4, 7, 9, 14)
HIDDEN = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("grouped") / "model"
    return Checkpoint(write_random_checkpoint(path, with_tokenizer=False))


@pytest.fixture(scope="module")
def numerics(checkpoint: Checkpoint) -> Numerics:
    return prove_numerics(checkpoint.config)


def hold(checkpoint: Checkpoint, numerics: Numerics) -> HeldLayer:
    """Some of a layer's experts, which came one load after another."""
    store = ExpertStore(
        checkpoint.config.n_routed_experts,
        lambda layer, experts: held_experts(checkpoint, layer, experts, numerics),
    )
    store.add(1, HELD[3:])
    store.add(1, (5, *HELD[:3]))
    store.remove(1, [5])
    held = store.layer(1)
    assert held is not None and held.experts == HELD and store.nbytes == held.weights.nbytes
    return held


def request(rows: int, seed: int, whole: float) -> DispatchRequest:
    """As it comes off the wire; a share of the rows is to be combined."""
    rng = np.random.default_rng(seed)
    combine = rng.random(rows) < whole
    counts = np.where(combine, 4, rng.integers(1, 5, rows)).astype(np.uint8)
    experts = [np.sort(rng.choice(HELD, count, replace=False)) for count in counts]
    frame = encode_request(
        DispatchRequest(
            request_id=1 + seed,
            epoch=Epoch(term=1, counter=1),
            layer=1,
            x=torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(seed)),
            counts=counts,
            combine=combine,
            experts=np.concatenate(experts).astype(np.uint16),
            weights=rng.random(int(counts.sum()), np.float32),
        )
    )
    return decode_request(bytes(frame))


@pytest.mark.parametrize("whole", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [(1,), (33,), (1, 1), (3, 1, 40, 2)])
def test_kernel_and_torch_agree(
    checkpoint: Checkpoint, numerics: Numerics, sizes: tuple[int, ...], whole: float
) -> None:
    held = hold(checkpoint, numerics)
    if numerics.segments:
        assert isinstance(held.weights, PackedExperts)
    library = unproven_numerics(numerics.row_quantum)
    plain = hold(checkpoint, library)
    assert isinstance(plain.weights, ExpertWeights)
    requests = [request(size, seed, whole) for seed, size in enumerate(sizes)]
    together = compute(requests, held, numerics)
    wanted = compute(requests, plain, library)
    alone = [compute([one], held, numerics)[0] for one in requests]
    for found, by_torch, by_itself in zip(together, wanted, alone, strict=True):
        assert torch.equal(found, by_torch)
        assert torch.equal(found, by_itself)


@pytest.mark.parametrize("proven", [True, False])
def test_answers_go_where_they_are_wanted(
    checkpoint: Checkpoint, numerics: Numerics, proven: bool
) -> None:
    arithmetic = numerics if proven else unproven_numerics(numerics.row_quantum)
    held = hold(checkpoint, arithmetic)
    requests = [request(5, 1, 0.5), request(2, 2, 0.5)]
    wanted: list[Tensor] = compute(requests, held, arithmetic)
    out = torch.full((sum(len(rows) for rows in wanted), HIDDEN), float("nan"))
    found = compute(requests, held, arithmetic, out=out)
    assert torch.equal(out, torch.cat(wanted))
    assert found[0].data_ptr() == out.data_ptr()


def test_another_feed_forward_is_asked(checkpoint: Checkpoint, numerics: Numerics) -> None:
    held = hold(checkpoint, numerics)
    one = request(1, 3, 0.0)
    rows = compute([one], held, numerics, lambda x, slots, weights, numerics: x)[0]
    assert torch.equal(rows, one.x.expand(len(rows), -1))
