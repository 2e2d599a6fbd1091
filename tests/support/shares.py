"""How pytest-xdist shares the tests out: files side by side, then all clusters one after another.

A process that starts, or computes, takes one processor; a Ray cluster takes all there are, and its
tests have bounds of time.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

ALONE = ("tests/e2e/", "tests/chaos/")
"""Folders whose tests never run beside each other."""


class Shares(LoadFileScheduling):  # type: ignore[misc]
    """One file is one share, and so are all of `ALONE` together; in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return "clusters" if nodeid.startswith(ALONE) else super()._split_scope(nodeid)
