"""The router over gRPC: streams, refusals, health, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kimi_k2.tokenizer import Tokenizer
from router_service.config import RouterConfig
from router_service.scheduler import Scheduler
from router_service.service import RouterService, RouterState
from tests.support.checkpoints import write_random_checkpoint
from tests.support.deadline import run_async, wait_until_async
from wire.channels import open_channel
from wire.clients.generate import GenerateStream
from wire.clients.router import RouterClient
from wire.errors import InternalError, StaleEpochError, UnavailableError
from wire.generated import orrery_pb2 as pb
from wire.placement import Epoch, Placement
from wire.services import END_OF_STREAM, generate_stream


@pytest.fixture(scope="module")
def full_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a tokenizer, as a router needs it."""
    return write_random_checkpoint(tmp_path_factory.mktemp("full"), seed=5)


def local(checkpoint: Path, **fields: object) -> RouterConfig:
    return RouterConfig(
        model=checkpoint,
        experts="local",
        threads=1,
        **fields,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def ready(config: RouterConfig) -> AsyncIterator[tuple[RouterService, RouterClient]]:
    service = RouterService(config)
    await service.start()
    try:
        await service.wait_ready()
        async with RouterClient(service.address) as client:
            yield service, client
        if service.engine is not None:
            engine = service.engine
            await wait_until_async(lambda: not engine.check_integrity(), "a clean engine", 10.0)
    finally:
        await service.stop()


def run(
    config: RouterConfig, scenario: Callable[[RouterService, RouterClient], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with ready(config) as (service, client):
            await scenario(service, client)

    run_async(main())


def submit(request_id: str, length: int = 9, **sampling: object) -> pb.Submit:
    fields = {
        "temperature": 0.0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "max_tokens": 6,
        "ignore_eos": True,
        **sampling,
    }
    return pb.Submit(
        request_id=request_id,
        prompt_token_ids=range(10, 10 + length),
        sampling=pb.SamplingParams(**fields),  # type: ignore[arg-type]
    )


async def outputs_of(stream: GenerateStream, message: pb.Submit) -> list[pb.RequestOutput]:
    return [output async for output in await stream.submit(message)]


def test_many_requests_share_a_stream_and_its_messages(full_checkpoint: Path) -> None:
    async def scenario(service: RouterService, client: RouterClient) -> None:
        channel = open_channel(service.address)
        call = generate_stream(channel)()
        for number in range(8):
            await call.write(
                pb.GenerateRequest(submit=submit(f"r{number}", logprobs=2, max_tokens=60))
            )
        await call.done_writing()
        steps = []
        while (step := await call.read()) is not END_OF_STREAM:
            steps.append(step)
        outputs = [output for step in steps for output in step.outputs]
        assert len(outputs) == 8 * 60
        assert max(len(step.outputs) for step in steps) == 8
        assert all(len(o.logprobs) == 1 and len(o.logprobs[0].top_logprobs) == 2 for o in outputs)
        finals = [o for o in outputs if o.finish_reason == pb.FINISH_REASON_LENGTH]
        assert sorted(o.request_id for o in finals) == [f"r{number}" for number in range(8)]
        assert await call.code() == grpc.StatusCode.OK
        await channel.close(None)

    run(local(full_checkpoint, micro_batches=1), scenario)


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (submit("bad", temperature=-1.0), "invalid_request", "temperature must be at least 0"),
        (submit("bad", temperature=float("nan")), "invalid_request", "finite"),
        (submit("bad", top_p=0.0), "invalid_request", "top_p must be above 0"),
        (submit("bad", logprobs=21), "invalid_request", "logprobs"),
        (submit("bad", min_tokens=7), "invalid_request", "min_tokens"),
        (submit("bad", stop_token_ids=[10_000]), "invalid_request", "vocabulary"),
        (submit("bad", length=0), "invalid_request", "at least one token"),
        (submit("bad", length=300), "context_length_exceeded", "at most 256"),
    ],
)
def test_a_refused_request_gets_one_typed_output_and_harms_no_other(
    full_checkpoint: Path, message: pb.Submit, code: str, words: str
) -> None:
    async def scenario(service: RouterService, client: RouterClient) -> None:
        stream = client.generate()
        good, bad = await asyncio.gather(
            outputs_of(stream, submit("good")), outputs_of(stream, message)
        )
        assert [o.finish_reason for o in bad] == [pb.FINISH_REASON_ERROR]
        assert bad[0].error.code == code
        assert words in bad[0].error.message
        assert sum(len(o.token_ids) for o in good) == 6
        await stream.close()

    run(local(full_checkpoint, max_model_len=256), scenario)


def test_an_abort_ends_one_request(full_checkpoint: Path) -> None:
    async def scenario(service: RouterService, client: RouterClient) -> None:
        stream = client.generate()
        long = await stream.submit(submit("long", max_tokens=5000))
        assert (await long.__anext__()).finish_reason == pb.FINISH_REASON_UNSPECIFIED
        await stream.abort("long")
        await stream.abort("unknown")
        *_, last = [output async for output in long]
        assert last.finish_reason == pb.FINISH_REASON_ABORT
        assert len(await outputs_of(stream, submit("next"))) == 6
        await stream.close()

    run(local(full_checkpoint), scenario)


def test_closing_the_stream_aborts_its_requests(full_checkpoint: Path) -> None:
    async def scenario(service: RouterService, client: RouterClient) -> None:
        engine = service.engine
        assert engine is not None
        stream, other = client.generate(), client.generate()
        for number in range(3):
            await stream.submit(submit(f"r{number}", max_tokens=5000))
        await wait_until_async(lambda: engine.scheduler.running == 3, "running requests", 10.0)
        survivor = asyncio.create_task(outputs_of(other, submit("r0", max_tokens=40)))
        await stream.close()
        assert sum(len(o.token_ids) for o in await survivor) == 40
        await wait_until_async(lambda: engine.scheduler.running == 0, "aborted requests", 10.0)
        await other.close()

    run(local(full_checkpoint), scenario)


def test_one_name_twice_ends_that_request_once(full_checkpoint: Path) -> None:
    async def scenario(service: RouterService, client: RouterClient) -> None:
        channel = open_channel(service.address)
        call = generate_stream(channel)()
        for _ in range(2):
            await call.write(pb.GenerateRequest(submit=submit("same", max_tokens=5000)))
        await call.write(pb.GenerateRequest())
        await call.done_writing()
        outputs = []
        while (step := await call.read()) is not END_OF_STREAM:
            outputs += step.outputs
        finals = [o for o in outputs if o.finish_reason != pb.FINISH_REASON_UNSPECIFIED]
        assert [(o.error.code, o.request_id) for o in finals] == [("invalid_request", "same")]
        await channel.close(None)

    run(local(full_checkpoint), scenario)


def test_a_request_ends_at_its_own_deadline(full_checkpoint: Path) -> None:
    async def scenario(service: RouterService, client: RouterClient) -> None:
        stream = client.generate()
        message = submit("late", max_tokens=60_000)
        message.timeout_s = 0.2
        *_, last = await outputs_of(stream, message)
        assert last.error.code == "deadline_exceeded"
        await stream.close()

    run(local(full_checkpoint), scenario)


def test_stop_strings_and_replays_over_the_wire(full_checkpoint: Path) -> None:
    async def scenario(service: RouterService, client: RouterClient) -> None:
        tokenizer = Tokenizer.from_dir(full_checkpoint)
        stream = client.generate()
        sampling = {"temperature": 1.0, "seed": 9, "max_tokens": 20, "logprobs": 1}
        whole = await outputs_of(stream, submit("whole", **sampling))
        tokens = [token for o in whole for token in o.token_ids]
        text = tokenizer.decode(tokens[5:7]).strip() or tokenizer.decode(tokens[5:7])
        stopped = await outputs_of(stream, submit("stopped", stop=[text], **sampling))
        assert stopped[-1].finish_reason == pb.FINISH_REASON_STOP
        assert stopped[-1].stop_reason == text
        again = submit("again", **sampling)
        again.output_token_ids.extend(tokens[:7])
        rest = await outputs_of(stream, again)
        assert [list(o.token_ids) for o in rest] == [list(o.token_ids) for o in whole[7:]]
        assert [o.logprobs[0] for o in rest] == [o.logprobs[0] for o in whole[7:]]
        await stream.close()

    run(local(full_checkpoint), scenario)


async def health(service: RouterService) -> int:
    async with open_channel(service.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(service="orrery.v1.Router"))
        return int(reply.status)


def test_loading_serving_draining(full_checkpoint: Path) -> None:
    async def main() -> None:
        service = RouterService(local(full_checkpoint))
        await service.start()
        async with RouterClient(service.address) as client:
            assert (await client.describe()).state == "loading"
            assert await health(service) == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(UnavailableError, match="loading"):
                await outputs_of(client.generate(), submit("early"))
            await service.wait_ready()
            description = await client.describe()
            assert (description.state, description.max_model_len) == ("ready", 65536)
            assert description.fingerprint
            assert description.model_hash
            assert await health(service) == health_pb2.HealthCheckResponse.SERVING
            stream = client.generate()
            running = asyncio.create_task(outputs_of(stream, submit("last", max_tokens=100)))
            await wait_until_async(lambda: bool(service.describe().running), "a request", 10.0)
            draining = asyncio.create_task(client.drain(20.0))
            await wait_until_async(lambda: service.state is RouterState.DRAINING, "drain", 10.0)
            refused = await outputs_of(stream, submit("late"))
            assert refused[0].error.code == "draining"
            assert await health(service) == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await draining
            assert sum(len(o.token_ids) for o in await running) == 100
            await stream.close()
        await service.stop()

    run_async(main())


def test_a_remote_router_serves_once_it_has_a_placement(full_checkpoint: Path) -> None:
    async def main() -> None:
        config = RouterConfig(model=full_checkpoint, threads=1)
        service = RouterService(config)
        await service.start()
        async with RouterClient(service.address) as client:
            await service.wait_ready()
            assert (await client.describe()).state == "ready"
            assert await health(service) == health_pb2.HealthCheckResponse.NOT_SERVING
            epoch = Epoch(term=2, counter=5)
            await client.set_placement(Placement(epoch=epoch, workers={}, owners={}))
            assert await health(service) == health_pb2.HealthCheckResponse.SERVING
            assert (await client.describe()).epoch == pb.Epoch(term=2, counter=5)
            stale = Placement(epoch=Epoch(term=1, counter=9), workers={}, owners={})
            with pytest.raises(StaleEpochError):
                await client.set_placement(stale)
        await service.stop()

    run_async(main())


def test_a_placement_that_comes_while_loading_is_used(full_checkpoint: Path) -> None:
    async def main() -> None:
        service = RouterService(RouterConfig(model=full_checkpoint, threads=1))
        await service.start()
        async with RouterClient(service.address) as client:
            placement = Placement(epoch=Epoch(term=3, counter=1), workers={}, owners={})
            await client.set_placement(placement)
            await service.wait_ready()
            assert await health(service) == health_pb2.HealthCheckResponse.SERVING
        await service.stop()

    run_async(main())


def test_a_checkpoint_that_cannot_be_served_is_a_failed_router(tmp_path: Path) -> None:
    async def main() -> None:
        service = RouterService(local(tmp_path / "nowhere"))
        await service.start()
        with pytest.raises(InternalError, match="nowhere"):
            await service.wait_ready()
        assert service.failed.is_set()
        async with RouterClient(service.address) as client:
            description = await client.describe()
            assert description.state == "failed"
            assert "nowhere" in description.error
            with pytest.raises(UnavailableError, match="failed"):
                await outputs_of(client.generate(), submit("r"))
        await service.stop()

    run_async(main())


def test_an_unforeseen_failure_to_load_is_a_failed_router(
    full_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(config: RouterConfig) -> None:
        raise ZeroDivisionError("made up")

    async def main() -> None:
        service = RouterService(local(full_checkpoint))
        await service.start()
        with pytest.raises(InternalError, match="made up"):
            await service.wait_ready()
        assert service.describe().state == "failed"
        await service.stop()

    monkeypatch.setattr("router_service.service.load_model", broken)
    run_async(main())
    assert "made up" in caplog.text


def test_an_engine_that_dies_ends_its_requests_and_fails_the_router(
    full_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        service = RouterService(local(full_checkpoint))
        await service.start()
        await service.wait_ready()
        async with RouterClient(service.address) as client:
            stream = client.generate()
            long = await stream.submit(submit("long", max_tokens=5000))
            await long.__anext__()
            monkeypatch.setattr(Scheduler, "schedule", lambda self: 1 // 0)
            *_, last = [output async for output in long]
            # So that the gateway goes on elsewhere, as it does when the process dies.
            assert last.error.code == "unavailable"
            await wait_until_async(service.failed.is_set, "the failure", 10.0)
            assert (await client.describe()).state == "failed"
            assert await health(service) == health_pb2.HealthCheckResponse.NOT_SERVING
            refused = await outputs_of(stream, submit("next"))
            assert refused[0].error.code == "unavailable"
            await stream.close()
        await service.stop()

    run_async(main())
    assert "the engine failed" in caplog.text


def test_metrics_and_debug_pages(full_checkpoint: Path) -> None:
    async def scenario(service: RouterService, client: RouterClient) -> None:
        stream = client.generate()
        await outputs_of(stream, submit("r", length=70))
        await outputs_of(stream, submit("r", length=70))
        await stream.close()
        async with httpx.AsyncClient(base_url=f"http://{service.metrics_address}") as http:
            text = (await http.get("/metrics")).text
            engine = (await http.get("/debug/engine")).json()
            experts = (await http.get("/debug/experts")).json()
            integrity = (await http.get("/debug/integrity")).json()
        assert "orrery_router_generated_tokens_total 12.0" in text
        assert "orrery_router_prefix_hit_tokens_total 64.0" in text
        assert 'orrery_router_requests_total{finish_reason="length"} 2.0' in text
        assert engine["kv_blocks"] == {"used": 0, "cached": 1, "free": 1023}
        assert experts == {"experts": "local"}
        assert integrity == {"violations": [], "sequences": 0}

    run(local(full_checkpoint), scenario)
