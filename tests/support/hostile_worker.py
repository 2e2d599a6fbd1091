"""An expert worker that answers wrongly or slowly when a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kimi_k2.combine import combine
from kimi_k2.expert_ffn import expert_ffn
from tests.support.expert_workers import ExpertModel
from wire.channels import new_server
from wire.codec import decode_request, encode_reply
from wire.frames import DispatchReply, DispatchRequest
from wire.generated import orrery_pb2 as pb
from wire.placement import Epoch
from wire.services import Context, add_expert_worker

Spoil = Callable[[DispatchReply], bytes]


def one_bit(reply: DispatchReply) -> bytes:
    """Well-formed, finite, and wrong in the last bit of the last number."""

    def flipped(rows: Tensor) -> Tensor:
        rows = rows.clone()
        rows.view(torch.uint8)[-1, -rows.element_size()] ^= 1
        return rows

    return encode_reply(replace(reply, rows=flipped(reply.rows)))


class HostileWorker:
    """Implements `wire.services.ExpertWorkerServicer`; right unless told how to be wrong, and
    quick unless told how long to take for each message."""

    def __init__(self, model: ExpertModel, worker_id: str = "expert-0") -> None:
        self.spoil: Spoil | None = None
        self.delay_s = 0.0
        self.worker_id = worker_id
        self.pid = 1
        self.model_hash = ""
        self.state: int = pb.WORKER_STATE_READY
        self.asked = 0
        self._model = model

    async def dispatch(self, frames: AsyncIterator[bytes], context: Context) -> None:
        async for message in frames:
            self.asked += 1
            await asyncio.sleep(self.delay_s)
            reply = self._right(decode_request(message))
            await context.write(encode_reply(reply) if self.spoil is None else self.spoil(reply))

    async def describe(self, request: pb.DescribeRequest) -> pb.WorkerDescription:
        config, numerics = self._model.config, self._model.numerics
        experts: Sequence[int] = range(config.n_routed_experts)
        return pb.WorkerDescription(
            worker_id=self.worker_id,
            pid=self.pid,
            model_hash=self.model_hash,
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


@asynccontextmanager
async def listening(worker: HostileWorker, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """The address that it serves at."""
    server = new_server()
    add_expert_worker(server, worker)
    host = listen.rpartition(":")[0]
    address = f"{host}:{server.add_insecure_port(listen)}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)
