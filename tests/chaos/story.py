"""What a scenario prints of itself: the figures, as they were measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.failover.clients import Clients
from benchmarks.failover.gaps import around, figures


def tell(what: str, load: Clients, moments: Sequence[float] = ()) -> None:
    """The pace of the clients, and their gaps; first those that contain one of the moments."""
    seconds = max(told.ended or time.perf_counter() for told in load.told) - load.begun
    gaps = load.gaps
    lines = [
        f"{what}; {len(load.told)} requests, {len(load.failed)} failed, {load.tokens} tokens, "
        f"{load.tokens / seconds:.0f}/s"
    ]
    if moments:
        lines.append(
            f"gaps with one of {len(moments)} such moments: {figures(around(gaps, moments))}"
        )
    lines.append(f"all gaps: {figures(gaps)}")
    print("\n" + "\n".join(lines))
