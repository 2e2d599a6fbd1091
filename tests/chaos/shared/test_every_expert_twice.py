"""Every expert has two copies: whoever is killed, nobody notices."""

from __future__ import annotations

import time

import pytest

from benchmarks.failover.clients import Answers, Clients
from benchmarks.failover.gaps import around, percentile
from tests.chaos.fleet import Fleet
from tests.chaos.form import Form
from tests.chaos.killer import Killer
from tests.chaos.story import tell

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

EVERY_S = 2.0
P99_S = 0.25


def test_kill_after_kill(
    fleet: Fleet, clients: Clients, answers: Answers, killer: Killer, form: Form
) -> None:
    known = len(fleet.events())
    with clients.streaming() as load:
        end = time.monotonic() + form.kills_s
        while time.monotonic() < end or len(killer.moments) < form.kills:
            time.sleep(EVERY_S)
            killer.strike()
        time.sleep(EVERY_S)
    waited = f"waited {killer.waited_s:.0f} s for those that may fall"
    tell(f"{len(killer.moments)} kills, {waited}", load, killer.moments)
    load.check(answers)
    kinds = [event["kind"] for event in fleet.events()[known:]]
    assert "experts_lost" not in kinds
    if form.full:
        assert percentile(around(load.gaps, killer.moments), 0.99) <= P99_S
