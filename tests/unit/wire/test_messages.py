"""Values survive their protobuf messages; inconsistent messages are refused."""

from __future__ import annotations

import pytest

from router_service.sampling import SamplingParams
from wire.errors import InvalidRequestError
from wire.generated import orrery_pb2 as pb
from wire.messages import (
    experts_from_message,
    experts_to_message,
    placement_from_message,
    placement_to_message,
    sampling_fields,
    sampling_to_message,
)
from wire.placement import Epoch, Placement, WorkerAddress


def worker(name: str) -> WorkerAddress:
    return WorkerAddress(worker_id=name, address=f"{name}:1", fingerprint="f", node="n")


def test_a_placement_survives() -> None:
    placement = Placement(
        epoch=Epoch(term=2, counter=5),
        workers={"b": worker("b"), "a": worker("a")},
        owners={1: (("a",), ("b", "a"), ()), 2: ((), ("b",), ("a",))},
    )
    message = pb.Placement.FromString(placement_to_message(placement).SerializeToString())
    assert placement_from_message(message) == placement


@pytest.mark.parametrize(
    "message",
    [
        pb.Placement(workers=[pb.WorkerAddress(worker_id="a"), pb.WorkerAddress(worker_id="a")]),
        pb.Placement(layers=[pb.LayerPlacement(layer=1), pb.LayerPlacement(layer=1)]),
        pb.Placement(
            workers=[pb.WorkerAddress(worker_id="a")],
            layers=[pb.LayerPlacement(layer=1, owners=[pb.ExpertOwners(workers=[1])])],
        ),
    ],
)
def test_an_inconsistent_placement_is_refused(message: pb.Placement) -> None:
    with pytest.raises(InvalidRequestError):
        placement_from_message(message)


def test_experts_survive() -> None:
    experts = {2: (0, 5), 1: (3,)}
    assert experts_from_message(experts_to_message(experts)) == experts


@pytest.mark.parametrize("ids", [[[1, 1]], [[1], [2]]])
def test_experts_named_twice_are_refused(ids: list[list[int]]) -> None:
    messages = [pb.LayerExperts(layer=1, experts=part) for part in ids]
    with pytest.raises(InvalidRequestError):
        experts_from_message(messages)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(
            temperature=0.5,
            top_p=0.25,
            top_k=7,
            min_p=0.125,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            repetition_penalty=1.5,
            seed=2**64 - 1,
            max_tokens=9,
            min_tokens=2,
            stop=("a", "ß"),
            stop_token_ids=(3, 4),
            ignore_eos=True,
            logprobs=0,
            logit_bias={5: -1.1},
        ),
    ],
)
def test_sampling_survives(params: SamplingParams) -> None:
    message = pb.SamplingParams.FromString(sampling_to_message(params).SerializeToString())
    assert SamplingParams(**sampling_fields(message)) == params
