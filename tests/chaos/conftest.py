from __future__ import annotations

import pytest

from tests.chaos.form import FULL, SHORT, Form


@pytest.fixture(scope="session")
def form(pytestconfig: pytest.Config) -> Form:
    return FULL if pytestconfig.getoption("--chaos") == "full" else SHORT
