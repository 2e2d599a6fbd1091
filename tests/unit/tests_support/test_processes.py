"""The search for processes left behind finds children and adopted grandchildren."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.deadline import wait_until
from tests.support.processes import MARK, describe, marked, wait_for_none

SESSION = "a session of this test"
SLEEP = "import time; time.sleep(60)"


def test_a_grandchild_whose_parent_is_gone_is_found() -> None:
    parent = (
        "import subprocess, sys;"
        f"print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}], stdout=-3).pid, flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", parent],
        env={**os.environ, MARK: SESSION},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=30,
    )
    pid = int(done.stdout)
    wait_until(lambda: [p.pid for p in marked(SESSION)] == [pid], "the grandchild to be found")
    (left,) = wait_for_none(SESSION, 0.1)
    assert str(pid) in describe(left)
    left.kill()
    assert not wait_for_none(SESSION, 10.0)
