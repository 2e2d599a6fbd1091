"""A worker may answer anything at all: no row hangs, none gets other bits, no link dies."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from router_service.dispatch import DispatchOptions
from tests.support.deadline import run_async, wait_until_async
from tests.support.dispatching import compare_rows
from tests.support.expert_workers import ExpertModel, Grid, all_live, placement, serving
from tests.support.hostile_worker import HostileWorker, Spoil, listening
from wire.codec import encode_error, encode_reply
from wire.envelope import PREFIX_BYTES
from wire.frames import DispatchReply, ErrorReply
from wire.generated import orrery_pb2 as pb
from wire.header import HEADER_BYTES

QUICK = DispatchOptions(deadline_s=0.5, describe_s=1.0, min_backoff_s=0.01, max_backoff_s=0.05)
UNKNOWN_STATE = 99


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


def everything(model: ExpertModel) -> dict[int, range]:
    return {layer: range(model.config.n_routed_experts) for layer in model.config.moe_layers}


def test_hostile_answers(model: ExpertModel) -> None:
    run_async(_hostile(model))


async def _hostile(model: ExpertModel) -> None:
    hostile = HostileWorker(model)
    async with listening(hostile) as address:
        await _ask_hostile(model, hostile, address)


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
