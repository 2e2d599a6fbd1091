"""What happened, what experts had to do, and how many workers that asks for."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cluster.autoscale import Autoscaler
from cluster.events import KINDS, Chronicle
from cluster.loads import LoadWindow
from cluster.signals import Note
from monitoring.request_notes import RequestNoteKind


def test_events_are_numbered_over_controllers(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    first = Chronicle(file, 1, lambda: 5.0)
    first.add(Note(kind="begun", text="all of them", seconds=2.0, facts={"by": "me"}))
    with file.open("a") as damaged:
        damaged.write('{"number": 7\n')
    heir = Chronicle(file, 2, lambda: 6.0)
    heir.add(Note(kind="resumed", text="again"))
    assert [(e.number, e.term, e.kind, e.time) for e in heir.entries()] == [
        (1, 1, "begun", 5.0),
        (2, 2, "resumed", 6.0),
    ]
    assert heir.entries(after=1)[0].text == "again"
    assert Chronicle(file, 3, lambda: 7.0).entries()[0].facts == {"by": "me"}


def test_events_are_bounded_in_memory_and_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    chronicle = Chronicle(file, 1, lambda: 0.0)
    for number in range(2500):
        chronicle.add(Note(kind="begun", text=str(number)))
    assert [e.text for e in chronicle.entries()] == [str(n) for n in range(1500, 2500)]
    assert len(file.read_text().splitlines()) <= 2000


def test_a_disk_that_refuses_loses_only_the_file(tmp_path: Path) -> None:
    chronicle = Chronicle(tmp_path / "missing" / "events.jsonl", 1, lambda: 0.0)
    chronicle.add(Note(kind="begun", text="a"))
    chronicle.add(Note(kind="begun", text="b"))
    assert len(chronicle.entries()) == 2


def test_every_kind_of_event_is_explained_and_told(repository: Path) -> None:
    code = "".join(path.read_text() for path in (repository / "cluster").glob("*.py"))
    used = set(re.findall(r'kind="(\w+)"', code)) | {"resumed", "begun", *RequestNoteKind}
    assert used == set(KINDS)
    page = (repository / "docs" / "operations" / "failures.md").read_text()
    assert not [kind for kind in KINDS if f"`{kind}`" not in page]


def test_loads_of_a_window() -> None:
    window = LoadWindow(10.0, [1, 2], 2)
    assert window.take(0.0, {}) is None
    first = window.take(1.0, {"r 1": {1: [5, 0], 2: [1, 1]}})
    assert first is not None
    assert first.tolist() == [[5, 0], [1, 1]]
    both = window.take(6.0, {"r 1": {1: [7, 0], 2: [1, 1]}, "r 2": {1: [0, 3], 2: [0, 0]}})
    assert both is not None
    assert both.tolist() == [[7, 3], [1, 1]]
    later = window.take(12.0, {"r 1": {1: [7, 0], 2: [1, 4]}, "r 2": {1: [0, 3], 2: [0, 0]}})
    assert later is not None
    assert later.tolist() == [[2, 3], [0, 3]]


def test_a_router_that_starts_again_and_one_of_another_model() -> None:
    window = LoadWindow(10.0, [1], 2)
    window.take(0.0, {"r 1": {1: [100, 100]}})
    load = window.take(1.0, {"r 2": {1: [1, 2]}, "odd": {1: [1, 2, 3]}, "empty": {}})
    assert np.array_equal(load, [[101, 102]])


def autoscaler() -> Autoscaler:
    return Autoscaler(least=2, most=8, target=0.5, down_after_s=60)


def busy(seconds: float, workers: int) -> dict[str, float]:
    return {f"expert-{n} {n}": seconds for n in range(workers)}


def test_busy_workers_get_help_at_once() -> None:
    scaler = autoscaler()
    assert scaler.wanted(0, busy(0, 3), 3) == 3
    assert scaler.wanted(10, busy(9, 3), 3) == 6
    assert scaler.wanted(20, busy(19, 3), 3) == 6
    assert scaler.wanted(30, busy(29, 6), 6) == 6
    assert scaler.wanted(40, busy(38, 6), 6) == 8


def test_the_load_that_is_wanted_moves_nothing() -> None:
    scaler = autoscaler()
    scaler.wanted(0, busy(0, 4), 4)
    assert scaler.wanted(10, busy(5.4, 4), 4) == 4
    assert scaler.wanted(20, busy(10, 4), 4) == 4


def test_idle_workers_go_only_after_a_while() -> None:
    scaler = autoscaler()
    seen = [scaler.wanted(10.0 * n, busy(0.5 * n, 4), 4) for n in range(8)]
    assert seen == [4, 4, 4, 4, 4, 4, 4, 2]


def test_one_busy_moment_keeps_them() -> None:
    scaler = autoscaler()
    total = 0.0
    for n in range(10):
        total += 4.9 if n == 5 else 0.5
        assert scaler.wanted(10.0 * n, busy(total, 4), 4) == 4


@pytest.mark.parametrize(("workers", "wanted"), [(1, 2), (9, 8), (3, 3)])
def test_bounds_hold_before_anything_is_known(workers: int, wanted: int) -> None:
    assert autoscaler().wanted(0, {}, workers) == wanted
