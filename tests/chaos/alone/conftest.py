"""Scenarios that need a fleet of their own, which takes a minute to start: full form only."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def alone(only_full: None) -> None:
    """Skips all of them in the short form."""
