"""Time told apart by wrapping."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from benchmarks.bench_layers import bar, mean
from benchmarks.layers.seams import REST, ROUTER, WORKER, SeamError, find, wrap
from benchmarks.loading.once import joined_runs
from benchmarks.phases import Phases


def test_a_call_s_own_time_leaves_out_what_is_timed_within() -> None:
    phases = Phases()
    inner = phases.timed("inner", lambda: time.sleep(0.03))

    def both() -> None:
        time.sleep(0.01)
        inner()

    phases.timed("outer", both)()
    assert phases.seconds["inner"] == pytest.approx(0.03, abs=0.015)
    assert phases.seconds["outer"] == pytest.approx(0.01, abs=0.009)
    assert phases.calls == {"inner": 1, "outer": 1}


def test_coroutines_and_exceptions_are_timed_too() -> None:
    phases = Phases()

    async def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        asyncio.run(phases.timed_coroutine("fails", fails)())
    assert phases.calls == {"fails": 1}


def test_time_of_other_threads_is_told_apart() -> None:
    phases = Phases()
    call = phases.timed("both", lambda: time.sleep(0.02))
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    call()
    assert phases.calls == {"both": 2}
    assert 0.0 < phases.beside_s < phases.seconds["both"]


def test_nothing_is_told_while_it_is_off() -> None:
    phases = Phases(on=False)
    assert phases.timed("off", lambda: 3)() == 3
    assert phases.calls == {}


def test_a_seam_that_has_moved_is_an_error() -> None:
    with pytest.raises(SeamError, match="Engine.gone is gone"):
        wrap({"router_service.engine:Engine.gone": "x"}, Phases())


@pytest.mark.parametrize("place", sorted({**ROUTER, **WORKER}))
def test_every_seam_is_where_it_is_said_to_be(place: str) -> None:
    owner, name = find(place)
    assert callable(getattr(owner, name))


def test_parts_add_up_to_the_step() -> None:
    began = {"at_s": 10.0, "processor_s": 1.0, "seconds": {"sampler": 1.0}, "calls": {}}
    ended = {"at_s": 12.0, "processor_s": 2.0, "seconds": {"sampler": 1.5}, "calls": {}}
    found = bar("side", 8, 0.004, {**began, "gate_s": 0.0}, {**ended, "gate_s": 0.0})
    assert found.parts_ms == pytest.approx({"sampler": 1.0, REST: 3.0})
    assert found.processor_ms == pytest.approx(2.0)
    assert mean([found, found]).parts_ms == pytest.approx(found.parts_ms)


def test_reads_without_a_gap_are_one() -> None:
    assert joined_runs([(30, 5), (0, 10), (10, 20), (40, 1)]) == [(0, 35), (40, 1)]
