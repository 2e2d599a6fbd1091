"""What the process at the terminal makes of its child; apart from the tests, whose it would end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUPERVISE = """
import sys, time
from pathlib import Path
from cluster.config import ClusterConfig
from cluster.errors import StartError
from cluster.home import Home
from cluster.supervisor import supervise

place = Home(path=Path(sys.argv[1]))
sys.executable = sys.argv[2]
try:
    supervise(ClusterConfig(), place, lambda: time.sleep(0.5), print)
except StartError as error:
    print(error)
"""


def test_a_child_that_dies_at_import_is_a_failure_that_names_the_log(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'ImportError: nothing here' >&2\nexit 1\n")
    broken.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISE, str(tmp_path), str(broken)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "ended unexpectedly" in done.stdout
    assert str(tmp_path / "serve.log") in done.stdout
    assert "ImportError" in (tmp_path / "serve.log").read_text()
