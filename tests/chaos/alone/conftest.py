"""Scenarios that need a fleet of their own, which takes a minute to start: full form only."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips them before any fleet is started."""
    if config.getoption("--chaos") == "full":
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="only in `make chaos`"))
