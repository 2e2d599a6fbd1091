"""A controller and its members on several Ray nodes, as those who watch them see it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from cluster.actor import CONTROLLER
from cluster.blueprint import Blueprint, draw
from cluster.config_reader import read_config
from cluster.kernels import compile_kernels
from cluster.members.actor import NAMESPACE
from tests.chaos.nodes import DESK, EXPERTS, ROUTERS, Nodes
from tests.chaos.trouble import ChaosController

_ASK_S = 20.0
_START_S = 150.0
_LOOK_S = 0.1

Row = dict[str, Any]


class Fleet:
    """handle: the controller's. Every wait has a deadline."""

    def __init__(self, nodes: Nodes, blueprint: Blueprint, folder: Path, handle: Any) -> None:
        self.nodes = nodes
        self.blueprint = blueprint
        self.handle = handle
        self._folder = folder

    def status(self, timeout_s: float = _ASK_S) -> dict[str, Any]:
        status: dict[str, Any] = ray.get(self.handle.status.remote(), timeout=timeout_s)
        return status

    def process(self, process_id: str) -> Row:
        return next(p for p in self.status()["processes"] if p["id"] == process_id)

    def workers(self, *, spare: bool = False) -> list[Row]:
        rows = self.status()["processes"]
        return [p for p in rows if p["role"] == "expert" and p["spare"] is spare]

    def routers(self) -> list[Row]:
        return [p for p in self.status()["processes"] if p["role"] == "router"]

    def worker(self, worker_id: str) -> Any:
        """Its actor's handle, for `tests.chaos.trouble`."""
        return ray.get_actor(f"orrery-{worker_id}", namespace=NAMESPACE)

    def ask(self, path: str, **body: Any) -> None:
        ray.get(self.handle.ask.remote(path, {**body, "by": "chaos"}), timeout=_ASK_S)

    def wait(
        self, what: str, condition: Callable[[dict[str, Any]], bool], seconds: float = 60.0
    ) -> dict[str, Any]:
        """The first status of which the condition holds; a controller may be away meanwhile."""
        end = time.monotonic() + seconds
        while True:
            try:
                status = self.status(timeout_s=5.0)
            except ray.exceptions.RayError as error:
                status = {"state": f"away: {type(error).__name__}", "processes": []}
            if status["processes"] and condition(status):
                return status
            if time.monotonic() > end:
                raise TimeoutError(f"no {what} in {seconds:g} s: {short(status)}")
            time.sleep(_LOOK_S)

    def rest(self, seconds: float = 90.0) -> dict[str, Any]:
        """The status once all is as it should be, spares too."""
        return self.wait("rest", at_rest, seconds)

    def watch(self, seconds: float) -> None:
        """Looks as often as a wait does, so that this is in the gaps of quiet seconds too."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.status()
            time.sleep(_LOOK_S)

    def events(self) -> list[Row]:
        """Told by all controllers so far, also while none is there."""
        lines = (self._folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def wait_for_event(self, kind: str, known: int, seconds: float = 60.0) -> Row:
        """The first of this kind after the first `known` events."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in self.events()[known:]:
                if event["kind"] == kind:
                    return event
            time.sleep(_LOOK_S)
        news = [event["kind"] for event in self.events()[known:]]
        raise TimeoutError(f"no {kind} in {seconds:g} s, only {news}")


def at_rest(status: Mapping[str, Any]) -> bool:
    rows = [p for p in status["processes"] if p["role"] in ("router", "expert")]
    return (
        status["state"] == "ready"
        and status["change"] is None
        and all(p["state"] == "ready" for p in rows)
        and sum(p["spare"] for p in rows) == status["wanted"]["spares"]
    )


def short(status: Mapping[str, Any]) -> str:
    rows = [f"{p['id']} {p['state']} {p['experts']} {p['error'][:80]}" for p in status["processes"]]
    return f"{status['state']}, change {status.get('change')}, {rows}"


@contextlib.contextmanager
def fleet_on(nodes: Nodes, folder: Path, config: Mapping[str, Any]) -> Iterator[Fleet]:
    """A fleet of nano-K2 at rest; `config` besides what every fleet of the suite has."""
    tree: dict[str, Any] = {
        "experts": {"nodes": EXPERTS, "threads": 1},
        "router": {"nodes": ROUTERS, "kv_blocks": 256, "max_running": 32},
        "controller": {"health_interval_s": 0.2},
        "rebalance": {"enabled": False, "drain_s": 0.2},
    }
    for section, values in config.items():
        tree[section] = {**tree.get(section, {}), **values}
    blueprint = draw(read_config(tree))
    # Once for all: a dozen processes that compile the same at once take minutes.
    compile_kernels(blueprint)
    folder.mkdir(parents=True, exist_ok=True)
    handle = ChaosController.options(
        name=CONTROLLER,
        namespace=NAMESPACE,
        lifetime="detached",
        num_cpus=0,
        resources={DESK: 1},
        max_restarts=-1,
        max_concurrency=16,
    ).remote(blueprint, folder / "journal.json")
    try:
        fleet = Fleet(nodes, blueprint, folder, handle)
        fleet.rest(_START_S)
        yield fleet
    finally:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(handle.stop.remote(), timeout=30)
        ray.kill(handle)
