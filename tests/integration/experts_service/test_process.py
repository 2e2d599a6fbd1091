"""`python -m experts_service` as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from experts_service.__main__ import main
from tests.support.deadline import run_async
from tests.support.expert_workers import REPOSITORY, ExpertModel, worker_process
from wire.clients.expert_worker import ExpertWorkerClient
from wire.generated import orrery_pb2 as pb

END_SECONDS = 30.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_ends_cleanly(model: ExpertModel, number: signal.Signals) -> None:
    with worker_process(model.path, "expert-7", "1:0-3,2:5") as worker:
        description = run_async(_describe(worker.address))
        assert description.worker_id == "expert-7"
        assert description.pid == worker.process.pid
        assert description.state == pb.WORKER_STATE_READY
        assert description.fingerprint == model.numerics.fingerprint
        assert description.metrics_address == worker.metrics_address
        held = {e.layer: list(e.experts) for e in description.experts}
        assert held == {1: [0, 1, 2, 3], 2: [5]}
        worker.process.send_signal(number)
        assert worker.process.wait(END_SECONDS) == 0


async def _describe(address: str) -> pb.WorkerDescription:
    async with ExpertWorkerClient(address) as client:
        return await client.describe()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--experts", "7:0"], "layer 7"),
        (["--experts", "1:0-99"], "expert"),
        (["--experts", "everything"], "not understood"),
        (["--experts", "missing.json"], "missing.json"),
        (["--threads", "0"], "threads"),
        (["--dtype", "float13"], "float13"),
        (["--worker-id", ""], "worker_id"),
        (["--metrics-listen", "nowhere"], "nowhere"),
        (["--model", "/nonexistent"], "/nonexistent"),
    ],
)
def test_bad_arguments_are_explained(
    model: ExpertModel,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert main(["--model", str(model.path), *arguments]) == 1
    event = json.loads(capsys.readouterr().out)
    assert event["event"] == "failed"
    assert said in event["error"]


def test_a_taken_port_is_explained(model: ExpertModel, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["--model", str(model.path), "--listen", listen]) == 1
    assert listen in json.loads(capsys.readouterr().out)["error"]


def test_a_failed_process_says_so_in_one_line(model: ExpertModel) -> None:
    command = [sys.executable, "-m", "experts_service", "--model", "/nonexistent"]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["event"] == "failed"
    assert len(done.stderr.strip().splitlines()) == 1


def test_experts_from_a_file(model: ExpertModel, tmp_path: Path) -> None:
    file = tmp_path / "experts.json"
    file.write_text(json.dumps({"2": [4, 1]}))
    with worker_process(model.path, "w", str(file)) as worker:
        description = run_async(_describe(worker.address))
        assert [(e.layer, list(e.experts)) for e in description.experts] == [(2, [1, 4])]


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux's scheduler only")
def test_a_worker_that_came_up_politely_has_no_thread_that_stands_back(model: ExpertModel) -> None:
    """Neither of its own nor of torch, numba or gRPC: they serve now."""
    code = f"""
import os
from pathlib import Path
from experts_service.actor import ExpertWorker
from experts_service.config import WorkerConfig
config = WorkerConfig(
    worker_id="w", model=Path({str(model.path)!r}), experts={{1: [0, 1]}}, threads=2, polite=True
)
worker = ExpertWorker(config)
super(ExpertWorker, worker).start()
worker.ready()
tasks = [int(task) for task in os.listdir("/proc/self/task")]
print(len(tasks), sorted({{os.sched_getscheduler(task) for task in tasks}}))
worker.stop()
"""
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    threads, policies = made.stdout.strip().split(" ", 1)
    assert int(threads) > 3
    assert policies == f"[{os.SCHED_OTHER}]"
