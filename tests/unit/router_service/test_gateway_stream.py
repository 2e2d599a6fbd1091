"""A gateway's stream ends whatever breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from router_service.gateway_stream import GatewayStream
from tests.support.deadline import run_async, wait_until_async
from tests.unit.router_service.fake_model import engine
from wire.errors import InternalError
from wire.generated import orrery_pb2 as pb


class BrokenContext:
    """Writes nothing, and not because the gateway is gone."""

    async def write(self, message: pb.StepOutput) -> None:
        raise ValueError("no such message")


async def requests(*, endless: bool) -> AsyncIterator[pb.GenerateRequest]:
    sampling = pb.SamplingParams(top_p=1.0, repetition_penalty=1.0, max_tokens=4000)
    submit = pb.Submit(request_id="one", prompt_token_ids=[2, 3], sampling=sampling, timeout_s=9)
    yield pb.GenerateRequest(submit=submit)
    if endless:
        await asyncio.Event().wait()


@pytest.mark.parametrize("endless", [True, False])
def test_a_writer_that_dies_ends_the_stream_and_its_requests(endless: bool) -> None:
    """Whether the gateway still has its side open or not."""

    async def scenario() -> None:
        served = engine()
        served.start()
        with pytest.raises(InternalError, match="cannot be written"):
            await GatewayStream(served).run(requests(endless=endless), BrokenContext())  # type: ignore[arg-type]
        await wait_until_async(lambda: not served.check_integrity(), "a clean engine", 5.0)
        assert not served.scheduler.sequences
        await served.stop()

    run_async(scenario())
