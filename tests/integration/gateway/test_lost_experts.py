"""Experts that nobody has any more: what clients are told over HTTP, and operators by notes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from kimi_k2.config import ModelConfig
from tests.support.checkpoints import write_random_checkpoint
from tests.support.deadline import wait_until
from tests.support.service_processes import ServiceProcess, gateway, running

COMPLETIONS = "/v1/completions"
WAIT_S = 1.5
NAMED = re.compile(r"expert (\d+) of layer (\d+) had no live copy for \d+ s")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


@contextlib.contextmanager
def cluster(
    model: Path, folder: Path
) -> Iterator[tuple[ServiceProcess, ServiceProcess, ServiceProcess]]:
    """A worker with all experts, a router that does not wait long for it, and a gateway."""
    config = ModelConfig.from_dir(model)
    worker = ServiceProcess("experts_service", "--model", model, "--worker-id", "expert-0")
    owners = [{"workers": [0]}] * config.n_routed_experts
    placement = folder / "placement.json"
    placement.write_text(
        json.dumps(
            {
                "epoch": {"term": 1, "counter": 1},
                "workers": [{"workerId": "expert-0", "address": worker.address}],
                "layers": [{"layer": layer, "owners": owners} for layer in config.moe_layers],
            }
        )
    )
    router = ServiceProcess(
        *("router_service", "--model", model, "--threads", 1, "--placement", placement),
        *("--park-timeout", WAIT_S),
    )
    front = gateway(model, router)
    with running(worker, router, front):
        yield worker, router, front


def notes_of(router: ServiceProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(
        f"http://{router.metrics_address}/debug/requests", trust_env=False
    ).json()["notes"]
    return found


def test_clients_and_operators_learn_which_expert_is_missing(model: Path, tmp_path: Path) -> None:
    body = {"model": "tiny", "prompt": "Once", "max_tokens": 30_000, "ignore_eos": True}
    with cluster(model, tmp_path) as (worker, router, front):
        events: list[str] = []
        with (
            httpx.Client(base_url=f"http://{front.address}", timeout=60, trust_env=False) as http,
            http.stream("POST", COMPLETIONS, json={**body, "stream": True}) as reply,
        ):
            assert reply.status_code == 200
            for line in reply.iter_lines():
                events += [line] * bool(line)
                if len(events) == 10:
                    worker.kill()
        error = json.loads(events[-1].removeprefix("data: "))["error"]
        assert (error["type"], error["code"]) == ("server_error", "experts_unavailable")
        found = NAMED.fullmatch(error["message"])
        assert found is not None
        name = json.loads(events[0].removeprefix("data: "))["id"]
        parked, failed = notes_of(router)
        assert (parked["kind"], failed["kind"]) == ("requests_parked", "requests_failed")
        for note in (parked, failed):
            assert [f"{note['expert']}", f"{note['layer']}"] == list(found.groups())
            assert note["requests"][0].startswith(f"{name}#")
            assert note["count"] == 1
        assert failed["seconds"] >= WAIT_S

        address = f"http://{front.address}/v1"
        with openai.OpenAI(base_url=address, api_key="-", max_retries=0, timeout=60) as client:
            with pytest.raises(openai.InternalServerError, match=NAMED) as caught:
                client.completions.create(model="tiny", prompt="Once")
            assert caught.value.status_code == 503
            assert caught.value.code == "experts_unavailable"
            assert caught.value.response.headers["retry-after"]
            with pytest.raises(openai.InternalServerError, match=NAMED):
                client.completions.create(model="tiny", prompt="Once", stream=True)
            worker.start()
            wait_until(lambda: _answers(client), "service to resume by itself", 60)


def _answers(client: openai.OpenAI) -> bool:
    try:
        client.completions.create(model="tiny", prompt="Once", max_tokens=2)
    except openai.InternalServerError:
        return False
    return True
