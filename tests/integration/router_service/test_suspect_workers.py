"""A router over gRPC whose only expert worker answers wrongly: it believes nothing, says so, and
ends requests by naming what is missing."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from router_service.config import RouterConfig
from router_service.service import RouterService
from tests.support.checkpoints import write_random_checkpoint
from tests.support.deadline import run_async, wait_until_async
from tests.support.expert_workers import ExpertModel, Grid, placement
from tests.support.hostile_worker import HostileWorker, listening, one_bit
from wire.clients.router import RouterClient
from wire.generated import orrery_pb2 as pb
from wire.placement import Epoch

SUBMIT = pb.Submit(
    request_id="r",
    prompt_token_ids=range(10, 20),
    sampling=pb.SamplingParams(
        temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=4, ignore_eos=True
    ),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("suspects"), seed=6)


def test_a_suspect_is_named_and_so_is_what_is_missing(checkpoint: Path) -> None:
    run_async(_suspect(checkpoint))


async def _suspect(checkpoint: Path) -> None:
    model = ExpertModel.load(checkpoint)
    experts = range(model.config.n_routed_experts)
    grid: Grid = {"expert-0": dict.fromkeys(model.config.moe_layers, experts)}
    wrong = HostileWorker(model)
    wrong.spoil, wrong.pid = one_bit, 4711
    config = RouterConfig(model=checkpoint, threads=1, park_timeout_s=0.3, park_poll_s=0.05)
    service = RouterService(config)
    await service.start()
    async with listening(wrong) as address, RouterClient(service.address) as client:
        await service.wait_ready()
        wrong_hash = (await client.describe()).model_hash
        wrong.model_hash = wrong_hash
        await client.set_placement(placement(model.config, grid, {"expert-0": address}))
        await wait_until_async(lambda: bool(service.describe().suspects), "the suspect")
        [suspect] = (await client.describe()).suspects
        assert (suspect.worker_id, suspect.pid) == ("expert-0", 4711)
        page = await _page(service, "/debug/experts")
        assert page["workers"]["expert-0"]["quarantined"]
        assert page["workers"]["expert-0"]["refusal"] == suspect.reason

        stream = client.generate()
        outputs = [output async for output in await stream.submit(SUBMIT)]
        assert not any(output.token_ids for output in outputs)
        assert outputs[-1].error.code == "experts_unavailable"
        assert re.fullmatch(
            r"expert \d+ of layer \d+ had no live copy for \d+ s", outputs[-1].error.message
        )

        # The controller has replaced its process, and published its new port.
        right = HostileWorker(model)
        right.pid, right.model_hash = 4712, wrong_hash
        async with listening(right) as fresh:
            epoch = Epoch(term=1, counter=2)
            after = placement(model.config, grid, {"expert-0": fresh}, epoch=epoch)
            await client.set_placement(after)
            outputs = [output async for output in await stream.submit(SUBMIT)]
            assert sum(len(output.token_ids) for output in outputs) == 4
            assert not (await client.describe()).suspects
        await stream.close()
    await service.stop()


async def _page(service: RouterService, path: str) -> dict[str, dict[str, dict[str, object]]]:
    async with asyncio.timeout(10), httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://{service.metrics_address}{path}")
        page: dict[str, dict[str, dict[str, object]]] = answer.json()
        return page
