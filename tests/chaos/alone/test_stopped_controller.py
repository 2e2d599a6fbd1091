"""A controller stands still with its node, another one takes over, and the old one wakes up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.chaos.asking import clients_of
from tests.chaos.fleet import fleet_on
from tests.chaos.form import Form
from tests.chaos.nodes import ray_nodes, stopped
from tests.chaos.story import tell
from tests.support.deadline import wait_until
from wire.placement import Epoch

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

_AWAKE_S = 10.0


def test_the_old_one_is_refused(tmp_path: Path, form: Form) -> None:
    with ray_nodes(2, desk=False) as nodes:
        nodes.add(experts=False, desk=True)
        with fleet_on(nodes, tmp_path, {"experts": {"workers": 3, "spares": 1}}) as fleet:
            clients = clients_of(fleet)
            answers = clients.undisturbed()
            old = fleet.process("controller")
            term = fleet.status()["epoch"]["term"]
            # Where Ray starts the next one, once the node of the old one does not answer.
            nodes.add(experts=False, desk=True)
            with clients.streaming() as load:
                time.sleep(form.breath_s)
                with stopped(nodes.raylet(old["node"])):
                    with stopped(old["pid"]):
                        moment = time.perf_counter()
                        fleet.wait(
                            "a controller of a higher term",
                            lambda s: s["state"] == "ready" and s["epoch"]["term"] > term,
                            120,
                        )
                    woken = time.perf_counter()
                    known = len(fleet.events())
                    end = wake(old["pid"], lambda: fleet.events()[known:])
                    fleet.ask("/scale", experts=4)
                    after = fleet.rest()
                time.sleep(form.breath_s)
            tell(f"old controller after its waking: {end}", load, [moment, woken])
            load.check(answers)
            assert after["epoch"]["term"] > term
            for router in fleet.routers():
                assert Epoch(**router["epoch"]) == Epoch(**after["epoch"])
            assert len(fleet.workers()) == 4


def wake(pid: int, news: Callable[[], list[dict[str, object]]]) -> str:
    """What becomes of it: it stands back, or Ray ends its process since its node is gone."""
    found: list[str] = []

    def known() -> bool:
        if any(event["kind"] == "superseded" for event in news()):
            found.append("it stands back")
        elif not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            found.append("its process has ended")
        return bool(found)

    wait_until(known, "the old controller's insight", _AWAKE_S)
    return found[0]
