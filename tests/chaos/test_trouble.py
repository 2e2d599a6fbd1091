"""Workers that are neither dead nor well: they hang, are slow, answer garbage, listen no more."""

from __future__ import annotations

import os
import signal
import time

import pytest
import ray

from tests.chaos.clients import Answers, Clients
from tests.chaos.fleet import Fleet, Row
from tests.chaos.form import Form
from tests.chaos.killer import Killer
from tests.chaos.story import tell
from tests.chaos.trouble import CLOSED, GARBAGE, MALFORMED, SLOW, WELL

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

HANG = "hang"
_ASK_S = 30.0


@pytest.mark.parametrize("kind", [SLOW, MALFORMED, GARBAGE, CLOSED, HANG])
def test_nobody_notices(
    kind: str, fleet: Fleet, clients: Clients, answers: Answers, killer: Killer, form: Form
) -> None:
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


def begin(fleet: Fleet, victim: Row, kind: str) -> None:
    if kind == HANG:
        os.kill(victim["pid"], signal.SIGSTOP)
    else:
        ray.get(fleet.worker(victim["id"]).trouble.remote(kind), timeout=_ASK_S)


def end(fleet: Fleet, victim: Row, kind: str) -> None:
    """A worker whose process is not what it was has been replaced meanwhile."""
    now = fleet.process(victim["id"])
    if kind in (HANG, CLOSED):
        # It is for the controller to replace it.
        fleet.wait(
            "another process in its place",
            lambda status: all(p["pid"] != victim["pid"] for p in status["processes"]),
        )
    elif now["pid"] == victim["pid"]:
        ray.get(fleet.worker(victim["id"]).trouble.remote(WELL), timeout=_ASK_S)
