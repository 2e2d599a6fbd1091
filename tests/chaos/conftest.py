from __future__ import annotations

import pytest

from tests.chaos.form import FULL, SHORT, Form


@pytest.fixture(scope="session")
def form(pytestconfig: pytest.Config) -> Form:
    return FULL if pytestconfig.getoption("--chaos") == "full" else SHORT


@pytest.fixture
def only_full(form: Form) -> None:
    """For scenarios that other tests have too, or that take long."""
    if not form.full:
        pytest.skip("only in `make chaos`")
