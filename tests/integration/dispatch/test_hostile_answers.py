"""A worker may answer anything at all: no row hangs, none gets other bits, no link dies."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kimi_k2.combine import combine
from kimi_k2.expert_ffn import expert_ffn
from router_service.dispatch import DispatchOptions
from tests.support.deadline import run_async, wait_until_async
from tests.support.dispatching import compare_rows
from tests.support.expert_workers import ExpertModel, Grid, all_live, placement, serving
from wire.channels import new_server
from wire.codec import decode_request, encode_error, encode_reply
from wire.envelope import PREFIX_BYTES
from wire.frames import DispatchReply, DispatchRequest, ErrorReply
from wire.generated import orrery_pb2 as pb
from wire.header import HEADER_BYTES
from wire.placement import Epoch
from wire.services import Context, add_expert_worker

QUICK = DispatchOptions(deadline_s=0.5, describe_s=1.0, min_backoff_s=0.01, max_backoff_s=0.05)
UNKNOWN_STATE = 99

Spoil = Callable[[DispatchReply], bytes]


def error(code: str, expert: int | None = None) -> Spoil:
    return lambda reply: encode_error(
        ErrorReply(request_id=reply.request_id, code=code, message="hostile", expert=expert)
    )


def rows(change: Callable[[Tensor], Tensor]) -> Spoil:
    return lambda reply: encode_reply(replace(reply, rows=change(reply.rows.clone())))


def last_element(value: float) -> Spoil:
    def change(answer: Tensor) -> Tensor:
        answer[-1, -1] = value
        return answer

    return rows(change)


def header_flip(seed: int) -> Spoil:
    """Never flips what only the rows' own bits could tell."""

    def spoil(reply: DispatchReply) -> bytes:
        chance = random.Random(seed)
        message = bytearray(encode_reply(reply))
        for _ in range(chance.randint(1, 3)):
            message[chance.randrange(PREFIX_BYTES + HEADER_BYTES)] ^= 1 << chance.randrange(8)
        return bytes(message)

    return spoil


KINDS: Mapping[str, Spoil] = {
    "garbage": lambda reply: b"GET / HTTP/1.1",
    "empty": lambda reply: b"",
    "cut": lambda reply: encode_reply(reply)[:-1],
    "expert far out of range": error("expert_not_held", 70000),
    "expert just out of range": error("expert_not_held", 16),
    "no expert named": error("expert_not_held"),
    "expert of another request": error("expert_not_held", 3),
    "unknown code": error("no_such_code"),
    "error of no request": lambda reply: encode_error(
        ErrorReply(request_id=0, code="bad_frame", message="hostile")
    ),
    "reply to nobody": lambda reply: encode_reply(replace(reply, request_id=2**63)),
    "not a number": last_element(float("nan")),
    "infinite": last_element(float("-inf")),
    "a row too many": rows(lambda x: torch.cat([x, x[:1]])),
    "a row too few": rows(lambda x: x[:-1] if len(x) > 1 else torch.cat([x, x])),
    "too narrow": rows(lambda x: x[:, :-1]),
    "another dtype": rows(lambda x: x.bfloat16()),
    **{f"flip {seed}": header_flip(seed) for seed in range(30)},
}


class HostileWorker:
    """Implements `wire.services.ExpertWorkerServicer`; right unless told how to be wrong."""

    def __init__(self, model: ExpertModel) -> None:
        self.spoil: Spoil | None = None
        self.state: int = pb.WORKER_STATE_READY
        self.asked = 0
        self._model = model

    async def dispatch(self, frames: AsyncIterator[bytes], context: Context) -> None:
        async for message in frames:
            self.asked += 1
            reply = self._right(decode_request(message))
            await context.write(encode_reply(reply) if self.spoil is None else self.spoil(reply))

    async def describe(self, request: pb.DescribeRequest) -> pb.WorkerDescription:
        config, numerics = self._model.config, self._model.numerics
        experts: Sequence[int] = range(config.n_routed_experts)
        return pb.WorkerDescription(
            worker_id="expert-0",
            state=self.state,  # type: ignore[arg-type]
            fingerprint=numerics.fingerprint,
            dtype=str(numerics.dtype).removeprefix("torch."),
            hidden_size=config.hidden_size,
            # Layers and experts that no model has are passed over.
            experts=[
                *(pb.LayerExperts(layer=layer, experts=experts) for layer in config.moe_layers),
                pb.LayerExperts(layer=config.moe_layers[0], experts=[70000]),
                pb.LayerExperts(layer=4000, experts=[1]),
            ],
        )

    async def load(self, request: pb.LoadRequest) -> pb.WorkerDescription:
        return pb.WorkerDescription()

    async def evict(self, request: pb.EvictRequest) -> pb.WorkerDescription:
        return pb.WorkerDescription()

    async def drain(self, request: pb.DrainRequest) -> pb.DrainResponse:
        return pb.DrainResponse()

    def _right(self, request: DispatchRequest) -> DispatchReply:
        held = self._model.local._weights[request.layer]
        pairs = torch.from_numpy(request.experts.astype(np.int64))
        x = request.x.repeat_interleave(torch.from_numpy(request.counts.astype(np.int64)), 0)
        answer = expert_ffn(x, pairs, held, self._model.numerics)
        if request.combine.all():
            top_k = self._model.config.num_experts_per_tok
            weights = torch.from_numpy(request.weights.copy()).view(-1, top_k)
            answer = combine(answer.view(-1, top_k, answer.shape[1]), weights)
        return DispatchReply(
            request_id=request.request_id,
            epoch=Epoch(term=1, counter=1),
            layer=request.layer,
            rows=answer,
        )


def everything(model: ExpertModel) -> dict[int, range]:
    return {layer: range(model.config.n_routed_experts) for layer in model.config.moe_layers}


def test_hostile_answers(model: ExpertModel) -> None:
    run_async(_hostile(model))


async def _hostile(model: ExpertModel) -> None:
    hostile = HostileWorker(model)
    server = new_server()
    add_expert_worker(server, hostile)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        await _ask_hostile(model, hostile, address)
    finally:
        await server.stop(None)


async def _ask_hostile(model: ExpertModel, hostile: HostileWorker, address: str) -> None:
    layer = model.config.moe_layers[0]
    grid: Grid = {"expert-0": everything(model), "expert-1": everything(model)}
    async with serving(model.path, {"expert-1": grid["expert-1"]}) as services:
        remote = model.remote(QUICK)
        addresses = {"expert-0": address, "expert-1": services["expert-1"].address}
        remote.set_placement(placement(model.config, grid, addresses))

        async def both_usable() -> None:
            await wait_until_async(
                lambda: all(seen["usable"] for seen in remote.snapshot()["workers"].values()),
                "both workers",
            )

        for name, spoil in KINDS.items():
            await both_usable()
            asked, hostile.spoil = hostile.asked, spoil
            # Of two idle workers the first is asked.
            await compare_rows(model, remote, layer, 3)
            assert hostile.asked > asked, name
            hostile.spoil = None
        await both_usable()
        hostile.spoil, hostile.state = KINDS["not a number"], UNKNOWN_STATE
        await compare_rows(model, remote, layer, 3)
        await wait_until_async(
            lambda: "unknown state" in str(remote.snapshot()["workers"]["expert-0"]["refusal"]),
            "the state to be seen",
        )
        await compare_rows(model, remote, layer, 3)
        hostile.spoil, hostile.state = None, pb.WORKER_STATE_READY
        await both_usable()
        asked = hostile.asked
        await compare_rows(model, remote, layer, 3)
        assert hostile.asked > asked
        assert remote.snapshot()["workers"]["expert-1"]["errors"] == {}
        await remote.close()


def test_a_row_that_is_not_finite_harms_no_other(model: ExpertModel) -> None:
    run_async(_not_finite(model))


async def _not_finite(model: ExpertModel) -> None:
    layer = model.config.moe_layers[0]
    grid: Grid = {"expert-0": everything(model)}
    async with serving(model.path, grid) as services:
        remote = model.remote(QUICK)
        addresses = {w: s.address for w, s in services.items()}
        remote.set_placement(placement(model.config, grid, addresses))
        await all_live(remote, model.config)
        x, idx, weights = model.rows(6, seed=1)
        right = (await (await model.local.dispatch(layer, x, idx, weights, None))).rows
        weights[1, 0], x[3, 5], x[5, 0] = float("nan"), float("inf"), float("nan")
        active = torch.tensor([True, True, True, True, True, False])
        result = await (await remote.dispatch(layer, x, idx, weights, active))
        assert result.parked is None
        assert torch.equal(result.rows[[0, 2, 4]], right[[0, 2, 4]])
        assert result.rows[[1, 3]].isnan().all()
        assert not result.rows[5].any()
        seen = remote.snapshot()["workers"]["expert-0"]
        assert seen["usable"] and seen["errors"] == {}
        await remote.close()
