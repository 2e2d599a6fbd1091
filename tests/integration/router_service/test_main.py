"""`python -m router_service` as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kimi_k2.config import ModelConfig
from router_service.placement_file import read_placement
from tests.support.checkpoints import write_random_checkpoint
from tests.support.deadline import run_async
from wire.clients.router import RouterClient
from wire.errors import InvalidRequestError
from wire.generated import orrery_pb2 as pb

SECONDS = 120


@pytest.fixture(scope="module")
def full_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("full"), seed=5)


@contextmanager
def started(module: str, repository: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def first_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


async def generate(address: str) -> list[int]:
    sampling = pb.SamplingParams(
        temperature=1.0, top_p=1.0, repetition_penalty=1.0, seed=3, max_tokens=5, ignore_eos=True
    )
    message = pb.Submit(request_id="r", prompt_token_ids=range(10, 90), sampling=sampling)
    async with RouterClient(address) as client:
        stream = client.generate()
        outputs = [output async for output in await stream.submit(message)]
        await stream.close()
    assert outputs[-1].finish_reason == pb.FINISH_REASON_LENGTH, outputs[-1]
    return [token for output in outputs for token in output.token_ids]


def test_local_and_remote_experts_give_the_same_and_sigterm_ends_both(
    repository: Path, full_checkpoint: Path, tmp_path: Path
) -> None:
    model = ("--model", full_checkpoint, "--threads", 1)
    with started("router_service", repository, *model, "--local-experts") as local:
        said = first_line(local)
        assert (said["event"], said["pid"]) == ("ready", local.pid)
        want = run_async(generate(said["address"]))
        local.send_signal(signal.SIGTERM)
        assert local.wait(SECONDS) == 0
    with started("experts_service", repository, "--model", full_checkpoint) as worker:
        placement = tmp_path / "placement.json"
        placement.write_text(json.dumps(placed(first_line(worker)["address"], full_checkpoint)))
        with started("router_service", repository, *model, "--placement", placement) as router:
            assert run_async(generate(first_line(router)["address"])) == want
            router.send_signal(signal.SIGTERM)
            assert router.wait(SECONDS) == 0


def placed(address: str, checkpoint: Path) -> dict[str, Any]:
    """All experts at one worker, in the form of a placement file."""
    config = ModelConfig.from_dir(checkpoint)
    owners = [{"workers": [0]}] * config.n_routed_experts
    return {
        "epoch": {"term": 1, "counter": 1},
        "workers": [{"workerId": "expert-0", "address": address}],
        "layers": [{"layer": layer, "owners": owners} for layer in config.moe_layers],
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "no/such/directory"), "no/such/directory"),
        (("--model", "{checkpoint}", "--kv-blocks", "0"), "kv_blocks must be at least 1"),
        (("--model", "{checkpoint}", "--listen", "127.0.0.1:{taken}"), "in use"),
        (("--model", "{checkpoint}", "--placement", "no.json"), "no.json is not a placement"),
    ],
)
def test_what_cannot_start_says_why(
    repository: Path, full_checkpoint: Path, arguments: tuple[str, ...], words: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        filled = [text.format(checkpoint=full_checkpoint, taken=port) for text in arguments]
        with started("router_service", repository, *filled) as process:
            said = first_line(process)
            assert process.wait(SECONDS) == 1
    assert said["event"] == "failed"
    assert words in said["error"]


@pytest.mark.parametrize("text", ["", "[]", '{"epoch": 3}', '{"layers": [{"layer": -1}]}'])
def test_a_file_that_is_no_placement_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "placement.json"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=r"placement\.json is not a placement"):
        read_placement(path)
