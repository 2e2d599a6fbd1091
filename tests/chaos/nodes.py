"""Several Ray nodes on this machine: one for the routers, the others for expert workers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.members.actor import NAMESPACE

# Ray is told that there are processors for everybody; the machine's own are shared.
_PROCESSORS = 8
_ROOT = Path(__file__).parents[2]
ROUTERS, EXPERTS = "part=routers", "part=experts"
DESK = "desk"
"""A resource of nodes that a controller may run on."""


class Nodes:
    """The head has the routers and, unless it is to move, the controller."""

    def __init__(self, experts: int, *, desk: bool) -> None:
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": _PROCESSORS,
                "labels": _labels(ROUTERS),
                "resources": {DESK: 1} if desk else {},
                "include_dashboard": False,
                # So that a node that is gone, or stands still, is known to be in seconds.
                "_system_config": {
                    "health_check_period_ms": 500,
                    "health_check_timeout_ms": 1000,
                    "health_check_failure_threshold": 3,
                },
            },
        )
        self.address = self._cluster.address
        for _ in range(experts):
            self.add()

    def add(self, *, experts: bool = True, desk: bool = False) -> Any:
        return self._cluster.add_node(
            num_cpus=_PROCESSORS if experts else 0,
            labels=_labels(EXPERTS) if experts else {},
            resources={DESK: 1} if desk else {},
        )

    def named(self, node_id: str) -> Any:
        return next(n for n in self._cluster.worker_nodes if n.node_id == node_id)

    def lose(self, node_id: str) -> None:
        """Its raylet and everything that it runs, at once."""
        self._cluster.remove_node(self.named(node_id), allow_graceful=False)

    def raylet(self, node_id: str) -> int:
        """The process id."""
        (raylet,) = self.named(node_id).all_processes["raylet"]
        return int(raylet.process.pid)

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def ray_nodes(experts: int, *, desk: bool = True) -> Iterator[Nodes]:
    """Joined by this process; all of it ended at the end. `desk`: the head has one."""
    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers find the actors of the tests by it.
        paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        nodes = Nodes(experts, desk=desk)
        try:
            ray.init(address=nodes.address, namespace=NAMESPACE, log_to_driver=False)
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """The processes stand still until the context is left; one may be gone by then."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _labels(label: str) -> dict[str, str]:
    key, _, value = label.partition("=")
    return {key: value}
