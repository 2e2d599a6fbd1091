"""Routers, gateways and controllers end in the middle of streams."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from benchmarks.failover.clients import Answers, Clients
from tests.chaos.asking import by_http
from tests.chaos.fleet import Fleet
from tests.chaos.form import Form
from tests.chaos.gateways import Gateway, gateways
from tests.chaos.nodes import kill
from tests.chaos.story import tell
from wire.placement import Epoch

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def some(shared: Fleet, form: Form) -> Iterator[Sequence[Gateway]]:
    with gateways(shared.blueprint, form.gateways) as found:
        yield found


def test_a_router_ends(fleet: Fleet, some: Sequence[Gateway], form: Form) -> None:
    clients = by_http(some[-1:], fleet)
    answers = clients.undisturbed()
    with clients.streaming() as load:
        time.sleep(form.breath_s)
        victim = max(fleet.routers(), key=lambda router: int(router["load"]["running"]))
        moment = time.perf_counter()
        kill(victim["pid"])
        time.sleep(form.trouble_s)
    tell(f"{victim['id']} killed with {victim['load']['running']} requests", load, [moment])
    load.check(answers)
    assert victim["load"]["running"]


@pytest.mark.usefixtures("only_full")
def test_a_gateway_ends(fleet: Fleet, some: Sequence[Gateway], form: Form) -> None:
    """Whoever asks the other one again, with the same key, gets the same from its first token."""
    clients = by_http(some, fleet)
    answers = clients.undisturbed()
    with clients.streaming() as load:
        time.sleep(form.breath_s)
        moment = time.perf_counter()
        kill(some[0].pid)
        time.sleep(form.trouble_s)
    broken = [told for told in load.told if told.times and told.times[0] < moment < told.ended]
    tell(f"gateway killed in the middle of {len(broken)} answers", load, [moment])
    load.check(answers)
    assert broken


def test_a_controller_ends(fleet: Fleet, clients: Clients, answers: Answers, form: Form) -> None:
    before = fleet.status()
    term = before["epoch"]["term"]
    with clients.streaming() as load:
        time.sleep(form.breath_s)
        moment = time.perf_counter()
        kill(fleet.process("controller")["pid"])
        after = fleet.wait(
            "a controller of a higher term",
            lambda status: status["state"] == "ready" and status["epoch"]["term"] > term,
        )
        time.sleep(form.breath_s)
    tell("controller killed", load, [moment])
    load.check(answers)
    assert processes(after) == processes(before)
    for router in fleet.routers():
        assert Epoch(**router["epoch"]) >= Epoch(**after["epoch"])


def processes(status: Mapping[str, Any]) -> dict[str, int]:
    """Of routers and workers: name to process id."""
    rows = status["processes"]
    return {p["id"]: p["pid"] for p in rows if p["role"] in ("router", "expert")}
