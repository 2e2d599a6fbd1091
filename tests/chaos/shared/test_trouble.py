"""Workers that are neither dead nor well: they hang, are slow, answer garbage, listen no more."""

from __future__ import annotations

import os
import signal
import time

import pytest
import ray

from benchmarks.failover.clients import Answers, Clients
from benchmarks.failover.wishes import CLIENTS, SEED
from tests.chaos.asking import clients_of
from tests.chaos.fleet import Fleet, Row
from tests.chaos.form import Form
from tests.chaos.killer import Killer
from tests.chaos.story import tell
from tests.chaos.trouble import CLOSED, GARBAGE, MALFORMED, SLOW, WELL, born_with
from tests.support.deadline import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

HANG = "hang"
_ASK_S = 30.0


@pytest.mark.parametrize("kind", [SLOW, MALFORMED, CLOSED, HANG])
def test_nobody_notices(
    kind: str, fleet: Fleet, clients: Clients, answers: Answers, killer: Killer, form: Form
) -> None:
    if kind == CLOSED and not form.full:
        pytest.skip("only in `make chaos`")
    with clients.streaming() as load:
        time.sleep(form.breath_s)
        victim = killer.choose()
        moment = time.perf_counter()
        begin(fleet, victim, kind)
        time.sleep(form.trouble_s)
        end(fleet, victim, kind)
        time.sleep(form.breath_s)
    tell(f"{kind} of {victim['id']} for {form.trouble_s:g} s", load, [moment])
    load.check(answers)


def test_garbage_is_found_out(fleet: Fleet, killer: Killer, form: Form) -> None:
    """From one canary to the next a worker that was well is believed. Requests that come once it
    is found out get what they would have got, of prompts too that were asked meanwhile."""
    known = len(fleet.events())
    # Nobody has asked these before, so that no cache has them from better times.
    clients = clients_of(fleet, seed=SEED + 1)
    with clients.streaming() as load:
        victim = killer.choose()
        moment = time.perf_counter()
        begin(fleet, victim, GARBAGE)
        died = fleet.wait_for_event("member_died", known)
        found = time.perf_counter()
        wait_until(
            lambda: sum(t.sent > found and t.ended > 0 for t in load.told) >= CLIENTS,
            "answers to later requests",
            60,
        )
    # The other router was not asked for anything while the worker answered garbage.
    wrong = load.other_than(clients_of(fleet, seed=SEED + 1, router=1).undisturbed())
    tell(
        f"garbage of {victim['id']} found out after {found - moment:.2f} s, meanwhile "
        f"{sum(told.sent <= found for told in wrong)} requests got other tokens",
        load,
        [moment],
    )
    assert (died["subject"], load.failed) == (victim["id"], [])
    assert "wrong answers" in died["text"]
    assert [told.sent - found for told in wrong if told.sent > found] == []


@pytest.mark.usefixtures("only_full")
def test_garbage_from_the_start_is_never_believed(
    fleet: Fleet, clients: Clients, answers: Answers, killer: Killer, form: Form
) -> None:
    born_with(GARBAGE)
    killer.strike()
    fleet.rest()
    born_with(WELL)
    (spare,) = fleet.workers(spare=True)
    with clients.streaming() as load:
        known = len(fleet.events())
        killer.strike()
        while (died := fleet.wait_for_event("member_died", known))["subject"] != spare["id"]:
            known += 1
        time.sleep(form.breath_s)
    tell(f"{spare['id']} was never right", load, killer.moments)
    assert "wrong answers" in died["text"]
    load.check(answers)


def begin(fleet: Fleet, victim: Row, kind: str) -> None:
    if kind == HANG:
        os.kill(victim["pid"], signal.SIGSTOP)
    else:
        ray.get(fleet.worker(victim["id"]).trouble.remote(kind), timeout=_ASK_S)


def end(fleet: Fleet, victim: Row, kind: str) -> None:
    """A process that hangs, or listens no more, is for the controller to replace."""
    if kind in (HANG, CLOSED):
        fleet.wait(
            "another process in its place",
            lambda status: all(p["pid"] != victim["pid"] for p in status["processes"]),
        )
    elif fleet.process(victim["id"])["pid"] == victim["pid"]:
        ray.get(fleet.worker(victim["id"]).trouble.remote(WELL), timeout=_ASK_S)
