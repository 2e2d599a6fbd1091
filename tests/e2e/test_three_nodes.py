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
# Ray's DRAIN_NODE_REASON_PREEMPTION: the node ends at the deadline, or when it is idle.
_PREEMPTION = 2


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

    def rest(self, seconds: float = 60) -> dict[str, Any]:
        """The status once all is as it should be, the spare too."""
        status: dict[str, Any] = self.wait(at_rest, seconds)
        return status

    def experts(self, *, spare: bool = False) -> list[dict[str, Any]]:
        rows = self.status()["processes"]
        return [p for p in rows if p["role"] == "expert" and p["spare"] is spare]

    def node_with_experts(self) -> Any:
        """One that the router is not on; the controller is on the head node, which is none."""
        for _ in range(6):
            routers = {p["node"] for p in self.status()["processes"] if p["role"] == "router"}
            holding = {p["node"] for p in self.experts()} - routers
            for node in self.nodes.worker_nodes:
                if node.node_id in holding:
                    return node
            # Ray puts the next worker somewhere else.
            self.ask("/scale", experts=len(self.experts()) + 1)
            self.rest()
        raise AssertionError("every worker is beside the router")

    def events(self) -> list[dict[str, Any]]:
        admin = self.process("controller")["address"]
        events: list[dict[str, Any]] = httpx.get(
            f"http://{admin}/events", timeout=10, trust_env=False
        ).json()
        return events

    def ask(self, path: str, **body: Any) -> None:
        ray.get(self.handle.ask.remote(path, {**body, "by": "test"}), timeout=30)

    def generate_until_rest(self, expected: list[int]) -> int:
        """Asks again and again, with the same answer each time, until nothing changes any more."""
        asked = 0
        end = time.monotonic() + 90
        while True:
            assert self.generate(f"request {time.monotonic()}") == expected
            asked += 1
            status = self.status()
            if at_rest(status):
                return asked
            if time.monotonic() > end:
                raise TimeoutError(f"not at rest: {status}")

    def generate(self, request_id: str) -> list[int]:
        """Sixteen greedy tokens of the first router."""
        address = ray.get(self.handle.routers.remote(), timeout=30)[0]
        return run_async(_generate(address, request_id), 60)


def at_rest(status: dict[str, Any]) -> bool:
    rows = status["processes"]
    return (
        status["state"] == "ready"
        and status["change"] is None
        and all(p["state"] == "ready" for p in rows)
        and sum(p["spare"] for p in rows) == status["wanted"]["spares"]
    )


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
                "experts": {"workers": WORKERS, "placement": "expert-major", "spares": 1},
                "rebalance": {"enabled": False, "drain_s": 0.2},
                "controller": {"health_interval_s": 0.2},
                "router": {"kv_blocks": 32},
            }
        )
    )
    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "resources": {"controller": 1},
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
            # A node that a test takes away must not take the controller along.
            resources={"controller": 1},
            max_restarts=-1,
            max_concurrency=8,
        ).remote(blueprint, folder / "journal.json")
        fleet = Fleet(nodes, handle)
        fleet.rest(90)
        yield fleet
        ray.get(handle.stop.remote(), timeout=30)
        ray.kill(handle)
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_workers_are_spread_over_the_nodes(fleet: Fleet) -> None:
    experts = fleet.experts()
    assert len({p["node"] for p in experts}) == WORKERS
    assert len({p["pid"] for p in experts}) == WORKERS
    assert [p["experts"] for p in experts] == [12, 10, 10]
    assert all(p["layers"] == [1, 2] for p in experts)
    (spare,) = fleet.experts(spare=True)
    assert (spare["id"], spare["experts"], spare["state"]) == ("expert-3", 0, "ready")


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


def test_a_node_that_ray_drains_is_emptied(fleet: Fleet) -> None:
    expected = fleet.generate("before the node leaves")
    known = len(fleet.events())
    fleet.nodes.add_node(num_cpus=2)
    leaving = fleet.node_with_experts()
    gcs = ray._raylet.GcsClient(address=fleet.nodes.address)
    deadline_ms = int(time.time() * 1000) + 300_000
    accepted, why = gcs.drain_node(leaving.node_id, _PREEMPTION, "taken away soon", deadline_ms)
    assert accepted, why

    def moved() -> bool:
        rows = [p for p in fleet.status()["processes"] if p["role"] == "expert"]
        nodes = {p["node"] for p in rows if p["state"] == "ready"}
        return at_rest(fleet.status()) and leaving.node_id not in nodes

    end = time.monotonic() + 60
    while not moved():
        assert fleet.generate(f"request {time.monotonic()}") == expected
        assert time.monotonic() < end, fleet.status()
    assert len(fleet.experts()) == WORKERS
    kinds = [event["kind"] for event in fleet.events()[known:]]
    assert "node_leaving" in kinds
    assert "member_left" in kinds
    assert "experts_lost" not in kinds
    fleet.nodes.remove_node(leaving, allow_graceful=False)


def test_the_spare_takes_the_place_of_a_killed_worker(fleet: Fleet) -> None:
    expected = fleet.generate("before")
    assert len(expected) == 16
    before = fleet.status()
    victim = fleet.experts()[0]
    (spare,) = fleet.experts(spare=True)
    known = len(fleet.events())
    os.kill(victim["pid"], signal.SIGKILL)
    assert fleet.generate("during") == expected
    after = fleet.rest()
    again = fleet.process(victim["id"])
    assert again["pid"] != victim["pid"]
    assert again["restarts"] == victim["restarts"] + 1
    assert again["spare"]
    assert again["experts"] == 0
    assert fleet.process(spare["id"])["experts"] == victim["experts"]
    assert after["epoch"]["term"] == before["epoch"]["term"]
    assert after["epoch"]["counter"] == before["epoch"]["counter"] + 2
    assert fleet.generate("after") == expected
    news = fleet.events()[known:]
    kinds = [event["kind"] for event in news]
    assert kinds.index("member_died") < kinds.index("experts_recovered")
    recovery = next(e["seconds"] for e in news if e["kind"] == "experts_recovered")
    assert recovery < 5


def test_a_rolling_restart_goes_unnoticed(fleet: Fleet) -> None:
    expected = fleet.generate("before the restart")
    before = {p["id"]: p["pid"] for p in fleet.experts() + fleet.experts(spare=True)}
    known = len(fleet.events())
    fleet.ask("/restart")
    assert fleet.generate_until_rest(expected) > 1
    after = {p["id"]: p["pid"] for p in fleet.experts() + fleet.experts(spare=True)}
    assert before.keys() == after.keys()
    assert all(after[name] != pid for name, pid in before.items())
    kinds = [event["kind"] for event in fleet.events()[known:]]
    assert "experts_lost" not in kinds
    assert "member_died" not in kinds


def test_scaling_and_draining_go_unnoticed(fleet: Fleet) -> None:
    expected = fleet.generate("before scaling")
    known = len(fleet.events())
    fleet.ask("/scale", experts=WORKERS + 1)
    fleet.generate_until_rest(expected)
    assert sorted(p["experts"] for p in fleet.experts()) == [8, 8, 8, 8]
    gone = fleet.experts()[0]["id"]
    fleet.ask("/drain", names=[gone])
    fleet.generate_until_rest(expected)
    assert gone not in {p["id"] for p in fleet.status()["processes"]}
    assert sum(p["experts"] for p in fleet.experts()) == 32
    assert len(fleet.experts()) == WORKERS
    with pytest.raises(ray.exceptions.RayError, match="no expert worker, router or node"):
        fleet.ask("/drain", names=["expert-99"])
    kinds = [event["kind"] for event in fleet.events()[known:]]
    assert "experts_lost" not in kinds


def test_a_killed_controller_returns_with_a_higher_term(fleet: Fleet) -> None:
    expected = fleet.generate("old term")
    before = fleet.status()
    pids = {p["id"]: p["pid"] for p in before["processes"] if p["role"] != "controller"}
    holds = {p["id"]: (p["experts"], p["spare"]) for p in before["processes"]}
    os.kill(fleet.process("controller")["pid"], signal.SIGKILL)
    after = fleet.wait(
        lambda status: (
            status["state"] == "ready" and status["epoch"]["term"] > before["epoch"]["term"]
        )
    )
    assert {p["id"]: p["pid"] for p in after["processes"] if p["role"] != "controller"} == pids
    assert {p["id"]: (p["experts"], p["spare"]) for p in after["processes"]} == holds
    router = next(p for p in after["processes"] if p["role"] == "router")
    assert Epoch(**router["epoch"]) == Epoch(**after["epoch"])
    assert fleet.generate("new term") == expected


def test_the_experts_of_a_lost_node_move_to_the_others(fleet: Fleet) -> None:
    expected = fleet.generate("three nodes")
    before = fleet.status()
    lost = fleet.node_with_experts()
    fleet.nodes.remove_node(lost, allow_graceful=False)
    assert fleet.generate("a node less") == expected
    after = fleet.wait(
        lambda status: (
            status["state"] == "ready"
            and status["epoch"] != before["epoch"]
            and all(p["node"] != lost.node_id for p in status["processes"])
        )
    )
    assert sum(p["experts"] for p in after["processes"]) >= 32
    assert fleet.generate("settled again") == expected
