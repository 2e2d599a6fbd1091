"""Scenarios that need a fleet of their own, which takes a minute to start: full form only."""

from __future__ import annotations

import pytest

from tests.chaos.form import Form


@pytest.fixture(autouse=True)
def in_full(form: Form) -> None:
    if not form.full:
        pytest.skip("only in `make chaos`")
