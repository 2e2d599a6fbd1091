"""Our values to protobuf messages and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from wire.errors import InvalidRequestError
from wire.generated import orrery_pb2 as pb
from wire.placement import Epoch, Placement, WorkerAddress


class SamplingFields(Protocol):
    """The attributes of sampling parameters that cross the wire, whoever defines them."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def min_p(self) -> float: ...
    @property
    def presence_penalty(self) -> float: ...
    @property
    def frequency_penalty(self) -> float: ...
    @property
    def repetition_penalty(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def max_tokens(self) -> int | None: ...
    @property
    def min_tokens(self) -> int: ...
    @property
    def stop(self) -> Sequence[str]: ...
    @property
    def stop_token_ids(self) -> Sequence[int]: ...
    @property
    def ignore_eos(self) -> bool: ...
    @property
    def logprobs(self) -> int | None: ...
    @property
    def logit_bias(self) -> Mapping[int, float]: ...


def epoch_to_message(epoch: Epoch) -> pb.Epoch:
    return pb.Epoch(term=epoch.term, counter=epoch.counter)


def epoch_from_message(message: pb.Epoch) -> Epoch:
    return Epoch(term=message.term, counter=message.counter)


def experts_to_message(experts: Mapping[int, Iterable[int]]) -> list[pb.LayerExperts]:
    return [
        pb.LayerExperts(layer=layer, experts=list(ids)) for layer, ids in sorted(experts.items())
    ]


def experts_from_message(messages: Iterable[pb.LayerExperts]) -> dict[int, tuple[int, ...]]:
    """Layer to ascending experts.

    Raises:
        InvalidRequestError: a layer twice, or an expert twice in a layer.
    """
    experts: dict[int, tuple[int, ...]] = {}
    for message in messages:
        ids = tuple(sorted(message.experts))
        if message.layer in experts or len(set(ids)) != len(ids):
            raise InvalidRequestError(f"layer {message.layer} is named twice or repeats an expert")
        experts[message.layer] = ids
    return experts


def placement_to_message(placement: Placement) -> pb.Placement:
    workers = list(placement.workers.values())
    index = {worker.worker_id: number for number, worker in enumerate(workers)}
    return pb.Placement(
        epoch=epoch_to_message(placement.epoch),
        workers=[
            pb.WorkerAddress(
                worker_id=worker.worker_id,
                address=worker.address,
                fingerprint=worker.fingerprint,
                node=worker.node,
            )
            for worker in workers
        ],
        layers=[
            pb.LayerPlacement(
                layer=layer,
                owners=[pb.ExpertOwners(workers=[index[w] for w in ids]) for ids in owners],
            )
            for layer, owners in sorted(placement.owners.items())
        ],
    )


def placement_from_message(message: pb.Placement) -> Placement:
    """A placement whose owners are all among its workers.

    Raises:
        InvalidRequestError: a worker or layer twice, or an owner that is no worker of it.
    """
    workers = {
        worker.worker_id: WorkerAddress(
            worker_id=worker.worker_id,
            address=worker.address,
            fingerprint=worker.fingerprint,
            node=worker.node,
        )
        for worker in message.workers
    }
    if len(workers) != len(message.workers):
        raise InvalidRequestError("the placement names a worker twice")
    ids = tuple(worker.worker_id for worker in message.workers)
    owners: dict[int, tuple[tuple[str, ...], ...]] = {}
    for layer in message.layers:
        if layer.layer in owners:
            raise InvalidRequestError(f"the placement holds layer {layer.layer} twice")
        if any(index >= len(ids) for expert in layer.owners for index in expert.workers):
            raise InvalidRequestError(f"layer {layer.layer} names an owner that is no worker")
        owners[layer.layer] = tuple(
            tuple(ids[index] for index in expert.workers) for expert in layer.owners
        )
    return Placement(epoch=epoch_from_message(message.epoch), workers=workers, owners=owners)


def sampling_to_message(params: SamplingFields) -> pb.SamplingParams:
    return pb.SamplingParams(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        repetition_penalty=params.repetition_penalty,
        seed=params.seed,
        max_tokens=params.max_tokens or 0,
        min_tokens=params.min_tokens,
        stop=list(params.stop),
        stop_token_ids=list(params.stop_token_ids),
        ignore_eos=params.ignore_eos,
        logprobs=params.logprobs,
        logit_bias=dict(params.logit_bias),
    )


def sampling_fields(message: pb.SamplingParams) -> dict[str, Any]:
    """Keyword arguments for the sampling parameters' own constructor, which validates them."""
    return {
        "temperature": message.temperature,
        "top_p": message.top_p,
        "top_k": message.top_k,
        "min_p": message.min_p,
        "presence_penalty": message.presence_penalty,
        "frequency_penalty": message.frequency_penalty,
        "repetition_penalty": message.repetition_penalty,
        "seed": message.seed,
        "max_tokens": message.max_tokens or None,
        "min_tokens": message.min_tokens,
        "stop": tuple(message.stop),
        "stop_token_ids": tuple(message.stop_token_ids),
        "ignore_eos": message.ignore_eos,
        "logprobs": message.logprobs if message.HasField("logprobs") else None,
        "logit_bias": dict(message.logit_bias),
    }
