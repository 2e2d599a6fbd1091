"""Three Ray nodes on one machine: the controller keeps expert workers alive across them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.actor import CONTROLLER, ControllerActor
from cluster.blueprint import draw
from cluster.config_reader import read_config
from cluster.members.actor import NAMESPACE
from tests.support.checkpoints import write_random_checkpoint
from tests.support.deadline import run_async
from wire.clients.router import RouterClient
from wire.generated import orrery_pb2 as pb
from wire.placement import Epoch

pytestmark = pytest.mark.ray

WORKERS = 3


class Fleet:
    """A controller on the three nodes, as its clients see it."""

    def __init__(self, nodes: Cluster, handle: Any) -> None:
        self.nodes = nodes
        self.handle = handle

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = ray.get(self.handle.status.remote(), timeout=30)
        return status

    def process(self, process_id: str) -> dict[str, Any]:
        return next(p for p in self.status()["processes"] if p["id"] == process_id)

    def wait(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while True:
            try:
                status = self.status()
            except ray.exceptions.RayError:
                status = {"state": "away", "processes": []}
            if condition(status):
                return status
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {status}")
            time.sleep(0.1)

    def generate(self, request_id: str) -> list[int]:
        """Sixteen greedy tokens of the first router."""
        address = ray.get(self.handle.routers.remote(), timeout=30)[0]
        return run_async(_generate(address, request_id), 60)


async def _generate(address: str, request_id: str) -> list[int]:
    async with RouterClient(address) as client:
        stream = client.generate()
        outputs = await stream.submit(
            pb.Submit(
                request_id=request_id,
                prompt_token_ids=list(range(5, 25)),
                sampling=pb.SamplingParams(
                    max_tokens=16, top_p=1.0, repetition_penalty=1.0, ignore_eos=True
                ),
            )
        )
        tokens: list[int] = []
        async for output in outputs:
            assert not output.error.message, output.error.message
            tokens += output.token_ids
        await stream.close()
        return tokens


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("three-nodes")
    model = write_random_checkpoint(folder / "model", expert_format="float32")
    blueprint = draw(
        read_config(
            {
                "model": {"path": str(model)},
                "experts": {"workers": WORKERS, "placement": "expert-major"},
                "controller": {"health_interval_s": 0.2},
                "router": {"kv_blocks": 32},
            }
        )
    )
    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "include_dashboard": False,
            # So that a node that is gone is known to be in seconds.
            "_system_config": {"health_check_period_ms": 500},
        },
    )
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=2)
        ray.init(address=nodes.address, namespace=NAMESPACE, log_to_driver=False)
        handle = ControllerActor.options(
            name=CONTROLLER,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=8,
        ).remote(blueprint, folder / "journal.json")
        fleet = Fleet(nodes, handle)
        fleet.wait(lambda status: status["state"] == "ready", 90)
        yield fleet
        ray.get(handle.stop.remote(), timeout=30)
        ray.kill(handle)
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_workers_are_spread_over_the_nodes(fleet: Fleet) -> None:
    experts = [p for p in fleet.status()["processes"] if p["role"] == "expert"]
    assert len({p["node"] for p in experts}) == WORKERS
    assert len({p["pid"] for p in experts}) == WORKERS
    assert [p["experts"] for p in experts] == [12, 10, 10]
    assert all(p["layers"] == [1, 2] for p in experts)


def test_pages_of_the_admin_port(fleet: Fleet) -> None:
    admin = f"http://{fleet.process('controller')['address']}"
    with httpx.Client(timeout=10, trust_env=False) as client:
        assert client.get(f"{admin}/healthz").is_success
        assert client.get(f"{admin}/status").json()["state"] == "ready"
        placement = client.get(f"{admin}/placement").json()
        assert placement["workers"]["expert-0"]["experts"] == {"1": "0-5", "2": "0-5"}
        assert placement["without_owner"] == {}
        targets = client.get(f"{admin}/sd").json()
        assert {t["labels"]["role"] for t in targets} == {"controller", "router", "expert"}
        for target in targets:
            scraped = client.get(f"http://{target['targets'][0]}/metrics")
            assert scraped.is_success
            assert "orrery_" in scraped.text


def test_a_killed_worker_is_started_again_in_a_higher_epoch(fleet: Fleet) -> None:
    expected = fleet.generate("before")
    assert len(expected) == 16
    before = fleet.status()
    victim = fleet.process("expert-1")
    os.kill(victim["pid"], signal.SIGKILL)
    assert fleet.generate("during") == expected

    status = fleet.wait(
        lambda status: (
            status["state"] == "ready"
            and status["epoch"]["counter"] >= before["epoch"]["counter"] + 2
        )
    )
    again = fleet.process("expert-1")
    assert again["pid"] != victim["pid"]
    assert again["restarts"] == victim["restarts"] + 1
    assert again["experts"] == victim["experts"]
    assert status["epoch"]["term"] == before["epoch"]["term"]
    assert fleet.generate("after") == expected


def test_a_killed_controller_returns_with_a_higher_term(fleet: Fleet) -> None:
    expected = fleet.generate("old term")
    before = fleet.status()
    pids = {p["id"]: p["pid"] for p in before["processes"] if p["role"] != "controller"}
    os.kill(fleet.process("controller")["pid"], signal.SIGKILL)
    after = fleet.wait(
        lambda status: (
            status["state"] == "ready" and status["epoch"]["term"] > before["epoch"]["term"]
        )
    )
    assert {p["id"]: p["pid"] for p in after["processes"] if p["role"] != "controller"} == pids
    router = next(p for p in after["processes"] if p["role"] == "router")
    assert Epoch(**router["epoch"]) == Epoch(**after["epoch"])
    assert fleet.generate("new term") == expected


def test_the_experts_of_a_lost_node_move_to_the_others(fleet: Fleet) -> None:
    expected = fleet.generate("three nodes")
    before = fleet.status()
    of_role = {p["role"]: p["node"] for p in before["processes"]}
    candidates = [node for node in fleet.nodes.worker_nodes if node.node_id != of_role["router"]]
    lost = min(candidates, key=lambda node: node.node_id == of_role["controller"])
    victim = next(
        p for p in before["processes"] if p["role"] == "expert" and p["node"] == lost.node_id
    )
    fleet.nodes.remove_node(lost, allow_graceful=False)
    assert fleet.generate("a node less") == expected
    after = fleet.wait(
        lambda status: status["state"] == "ready" and status["epoch"] != before["epoch"]
    )
    moved = next(p for p in after["processes"] if p["id"] == victim["id"])
    assert moved["node"] != victim["node"]
