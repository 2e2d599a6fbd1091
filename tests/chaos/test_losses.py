"""Experts without another copy are lost and loaded again; nodes go with all that they run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest

from tests.chaos.clients import Answers, Clients
from tests.chaos.conftest import clients_of
from tests.chaos.fleet import Fleet, Row, at_rest, fleet_on
from tests.chaos.form import Form
from tests.chaos.gaps import around, figures
from tests.chaos.killer import Killer
from tests.chaos.nodes import Nodes, kill
from tests.chaos.story import tell

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

_BREATH_S = 2.0


def test_what_nobody_else_holds_is_loaded_again(
    fleet: Fleet, clients: Clients, answers: Answers
) -> None:
    """Two at once of those who hold every expert twice: some experts have lost both copies."""
    known = len(fleet.events())
    with clients.streaming() as load:
        time.sleep(_BREATH_S)
        moments = [lose(row) for row in fleet.workers()[:2]]
        recovered = fleet.wait_for_event("experts_recovered", known)
        time.sleep(_BREATH_S)
    tell(
        f"two workers at once: every expert is back after {recovered['seconds']:.2f} s",
        load,
        moments,
    )
    load.check(answers)
