"""Requests to expert workers, and comparing their answers with experts in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import torch

from router_service.dispatch import RemoteExperts
from tests.support.expert_workers import ExpertModel
from wire.carriers.agreement import enter, local_wish
from wire.carriers.carrier import INLINE
from wire.carriers.framed_socket import FramedSocket
from wire.channels import open_channel
from wire.envelope import Message
from wire.errors import OrreryError
from wire.frames import DispatchRequest
from wire.placement import Epoch
from wire.services import dispatch_stream

TERM = 5


async def compare_rows(
    model: ExpertModel, remote: RemoteExperts, layer: int, number: int, seed: int = 0
) -> None:
    """Fails unless both give the same bits, with all rows active and with some."""
    x, idx, weights = model.rows(number, seed=seed + layer * 1000 + number)
    for active in (None, torch.arange(number) % 5 != 4):
        here = await (await model.local.dispatch(layer, x, idx, weights, active))
        there = await (await remote.dispatch(layer, x, idx, weights, active))
        assert there.parked is None
        assert not there.missing
        assert torch.equal(here.rows, there.rows)


def request(model: ExpertModel, request_id: int, rows: int = 3, seed: int = 0) -> DispatchRequest:
    """All of each row's experts, to be combined by the worker."""
    x, idx, weights = model.rows(rows, seed)
    return DispatchRequest(
        request_id=request_id,
        epoch=Epoch(term=TERM, counter=0),
        layer=model.config.moe_layers[0],
        x=x,
        counts=np.full(rows, idx.shape[1], np.uint8),
        combine=np.ones(rows, np.bool_),
        experts=idx.numpy().astype(np.uint16).ravel(),
        weights=weights.numpy().ravel(),
    )


class LocalTalk:
    """A local socket with the methods of a stream."""

    def __init__(self, connection: Any) -> None:
        self._answers: asyncio.Queue[Message | OrreryError] = asyncio.Queue()
        self.carrier = FramedSocket(connection, self._answers.put_nowait, self._answers.put_nowait)

    async def write(self, message: Message) -> None:
        self.carrier.put(message)

    async def read(self) -> Message:
        """Raises what the connection has ended with."""
        answer = await self._answers.get()
        if isinstance(answer, OrreryError):
            raise answer
        return answer


@asynccontextmanager
async def talking(address: str, carrier: str) -> AsyncIterator[Any]:
    """What has the `write` and `read` of a stream to a worker, by the carrier."""
    async with open_channel(address) as channel:
        if carrier == INLINE:
            stream = dispatch_stream(channel)()
            yield stream
        else:
            stream = dispatch_stream(channel)(metadata=local_wish())
            talk = LocalTalk(await enter(await stream.initial_metadata(), 5.0))
            yield talk
            talk.carrier.close()
        stream.cancel()
