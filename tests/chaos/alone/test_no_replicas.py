"""No expert has a second copy: what is lost comes back from the checkpoint, and waits till then."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.failover.wishes import SEED
from tests.chaos.asking import clients_of
from tests.chaos.fleet import Fleet, fleet_on
from tests.chaos.form import Form
from tests.chaos.killer import Killer
from tests.chaos.nodes import Nodes, kill, ray_nodes, stopped
from tests.chaos.story import tell

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

EVERY_S = 20.0
# Of 384 experts in each layer: eight are held once.
MOST_TWICE = 376
HELD_S = 2.0


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with ray_nodes(2) as made:
        yield made


def test_kill_after_kill(nodes: Nodes, tmp_path: Path, form: Form) -> None:
    draw = random.Random(SEED)
    with fleet_on(nodes, tmp_path, {"experts": {"workers": 4, "spares": 1}}) as fleet:
        clients = clients_of(fleet)
        answers = clients.undisturbed()
        moments, away = [], []
        with clients.streaming() as load:
            for _ in range(form.losses):
                time.sleep(form.breath_s)
                fleet.rest()
                away.append(lose(fleet, draw, moments))
                time.sleep(max(0.0, moments[-1] + EVERY_S - form.breath_s - time.perf_counter()))
        seconds = ", ".join(f"{found:.2f}" for found in away)
        tell(f"{len(moments)} kills without replicas; held again after {seconds} s", load, moments)
        load.check(answers)


def lose(fleet: Fleet, draw: random.Random, moments: list[float]) -> float:
    """Kills a worker; seconds until every expert was held again, as the controller counts them."""
    known = len(fleet.events())
    victim = draw.choice([row for row in fleet.workers() if row["experts"]])
    moments.append(time.perf_counter())
    kill(victim["pid"])
    return float(fleet.wait_for_event("experts_recovered", known)["seconds"])


def test_rows_that_need_nothing_lost_keep_moving(nodes: Nodes, tmp_path: Path) -> None:
    """Most experts twice: a worker takes few with it, and while nobody loads them again, since the
    controller stands still, streams go on until they need one of those."""
    config = {
        "experts": {
            "workers": 4,
            "redundant_experts": MOST_TWICE,
            "placement": "expert-major",
            "spares": 1,
        }
    }
    with fleet_on(nodes, tmp_path, config) as fleet, Killer(fleet, SEED) as killer:
        clients = clients_of(fleet)
        answers = clients.undisturbed()
        with clients.streaming() as load:
            time.sleep(HELD_S)
            known = len(fleet.events())
            controller, victim = fleet.process("controller"), killer.needed()
            with stopped(controller["pid"]):
                kill(victim["pid"])
                moment = time.perf_counter()
                time.sleep(HELD_S)
                until = time.perf_counter()
            fleet.rest()
            time.sleep(HELD_S)
        moved = [sum(moment + 0.1 < at < until for at in told.times) for told in load.told]
        tell(
            f"{victim['id']} lost for {HELD_S:g} s and more: {sum(map(bool, moved))} streams "
            f"brought {sum(moved)} tokens meanwhile",
            load,
            [moment],
        )
        load.check(answers)
        assert "experts_lost" in [event["kind"] for event in fleet.events()[known:]]
        assert sum(moved)
