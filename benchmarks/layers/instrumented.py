"""A router or an expert worker with its parts timed.

`python -m benchmarks.layers.instrumented router|worker ARGUMENTS...` is the service itself, which
prints a line of JSON with the times so far at each SIGUSR1; timing starts at the first.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from time import perf_counter, process_time
from types import FrameType
from typing import Any

from benchmarks.layers.seams import ROUTER, WORKER, wrap
from benchmarks.phases import Phases

GATE = "gate_s"
"""In what is told: seconds of the gate alone, a call."""
_REPLAYS = 20


def main() -> int:
    """The service's own exit status."""
    from experts_service.__main__ import main as worker
    from router_service.__main__ import main as router

    role = sys.argv.pop(1)
    phases = Phases(on=False)
    gate = _GateReplay()
    if role == "router":
        gate.install()
    wrap(ROUTER if role == "router" else WORKER, phases)
    signal.signal(signal.SIGUSR1, _teller(phases, gate))
    return router() if role == "router" else worker()


class _GateReplay:
    """The gate of the compiled layers is a part of the call that attends: it is run again alone, on
    the rows of the last pass, to tell the two apart."""

    def __init__(self) -> None:
        self._last: tuple[Any, int] | None = None

    def install(self) -> None:
        from kimi_k2.compiled_layers import CompiledPass

        attend = CompiledPass.attend

        async def noting(running: CompiledPass, layer: int, routed: Any) -> Any:
            found = await attend(running, layer, routed)
            if found[1] is not None:
                self._last = running, layer
            return found

        setattr(CompiledPass, "attend", noting)  # noqa: B010

    def seconds(self) -> float:
        """Of one call on as many rows as the last pass had; 0 where the gate is no such part."""
        import numpy as np

        if self._last is None:
            return 0.0
        from kimi_k2.layer_kernels import _route

        running, layer = self._last
        layers = running._layers
        top_k = layers.config.num_experts_per_tok
        ids = np.empty((running.rows, top_k), np.int64)
        weights = np.empty((running.rows, top_k), np.float32)
        best = float("inf")
        for _ in range(_REPLAYS):
            began = perf_counter()
            _route(
                layers.facts[0],
                layers.layers[layer][0],
                running._x,
                np.empty_like(running._x),
                ids,
                weights,
            )
            best = min(best, perf_counter() - began)
        return best


def _teller(phases: Phases, gate: _GateReplay) -> Callable[[int, FrameType | None], None]:
    def tell(_: int, __: FrameType | None) -> None:
        told: dict[str, Any] = {
            "at_s": perf_counter(),
            "processor_s": process_time(),
            "seconds": dict(phases.seconds),
            "calls": dict(phases.calls),
            "beside_s": phases.beside_s,
        }
        told[GATE] = gate.seconds() if phases.on else 0.0
        phases.on = True
        print(json.dumps(told), flush=True)

    return tell


if __name__ == "__main__":
    sys.exit(main())
