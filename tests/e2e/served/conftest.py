"""One server of the embedded model for every test that only asks it something.

They have a folder, so that it ends with the last of them: an idle cluster takes its share of the
processors.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.server import Orrery


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orrery]:
    """`orrery serve` with nothing but a port, ready."""
    orrery = Orrery(tmp_path_factory.mktemp("served"))
    try:
        orrery.serve()
        orrery.wait_for("ready: ")
        yield orrery
        stopped = orrery.run("stop")
        assert stopped.returncode == 0, stopped.stderr
        assert orrery.wait_for_end() == 0, orrery.output
        assert orrery.left_behind() == []
    finally:
        orrery.kill_everything()
