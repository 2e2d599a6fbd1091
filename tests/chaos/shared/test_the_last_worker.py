"""All expert workers end at once, and stay away for longer than a request may wait."""

from __future__ import annotations

import re
import time

import pytest

from benchmarks.failover.clients import Answers, Clients
from tests.chaos.fleet import Fleet
from tests.chaos.form import Form
from tests.chaos.nodes import kill, stopped
from tests.chaos.story import tell
from tests.support.deadline import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

_MARGIN_S = 5.0


def test_a_clear_error_within_the_bound_then_service_resumes(
    fleet: Fleet, clients: Clients, answers: Answers, form: Form
) -> None:
    status = fleet.status()
    workers = [p for p in status["processes"] if p["role"] == "expert"]
    (controller,) = (p for p in status["processes"] if p["role"] == "controller")
    with clients.streaming() as load:
        time.sleep(form.breath_s)
        # Nobody starts them again while the controller stands still.
        with stopped(controller["pid"]):
            moment = time.perf_counter()
            for worker in workers:
                kill(worker["pid"])
            waiting = [told for told in load.told if not told.ended]
            wait_until(
                lambda: all(told.ended for told in waiting),
                "the end of what waits",
                form.bound_s + _MARGIN_S,
            )
        gone = {worker["pid"] for worker in workers}
        fleet.wait(
            "the workers' return",
            lambda status: (
                status["state"] == "ready" and not gone & {p["pid"] for p in status["processes"]}
            ),
            90,
        )
        resumed = time.perf_counter()
        wait_until(
            lambda: any(t.sent > resumed and t.ended and not t.error for t in load.told),
            "an answer to a request that came later",
        )
    failed = [told for told in waiting if told.error]
    tell(f"all {len(workers)} workers away for {form.bound_s:g} s and more", load)
    print(f"{len(failed)} of {len(waiting)} that ran have failed: {failed[0].error}")
    assert failed
    for told in load.failed:
        assert re.search(r"expert \d+ of layer \d+|layer \d+\D+expert \d+", told.error), told.error
        waited = told.ended - max(told.times[-1] if told.times else told.sent, moment)
        assert form.bound_s - 1 <= waited <= form.bound_s + _MARGIN_S
    load.check_tokens(answers)
    assert all(not told.error for told in load.told if told.sent > resumed)
