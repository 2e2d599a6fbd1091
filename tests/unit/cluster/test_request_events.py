"""Notes of routers and gateways become events, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from cluster.events import Chronicle
from cluster.request_events import RequestEvents, summaries
from monitoring.metrics import RouterMetrics
from monitoring.request_notes import NAMED, RequestNoteKind, RequestNotes
from tests.support.deadline import run_async


def new_notes() -> RequestNotes:
    return RequestNotes(RouterMetrics(CollectorRegistry()).request_notes, lambda: 7.0)


class Processes:
    """`Pages` of notes in memory, by address; None: nobody answers."""

    def __init__(self, **notes: RequestNotes | None) -> None:
        self.notes = dict(notes)

    async def read(self, address: str) -> dict[str, Any]:
        notes = self.notes[address]
        if notes is None:
            raise httpx.ConnectError("gone")
        return notes.page()

    def addresses(self) -> dict[str, str]:
        return {f"router-{address}": address for address in self.notes}


def collector(processes: Processes, chronicle: Chronicle) -> RequestEvents:
    return RequestEvents(processes, processes.addresses, chronicle.add, chronicle.entries())


def test_what_one_loss_did_is_one_event() -> None:
    notes = new_notes()
    notes.add(RequestNoteKind.PARKED, ["a", "b"], missing=(2, 5))
    notes.add(RequestNoteKind.PARKED, [f"c{n}" for n in range(30)], missing=(2, 6))
    notes.add(RequestNoteKind.PARKED, ["d"], missing=(3, 9))
    notes.add(RequestNoteKind.RESUMED, ["a"], missing=(2, 5), seconds=0.25)
    notes.add(RequestNoteKind.RESUMED, ["b"], missing=(2, 5), seconds=0.5)
    page = notes.page()
    first, second, third = summaries("router-0", page["source"], page["notes"])
    assert (first.kind, first.subject, first.seconds) == ("requests_parked", "router-0", None)
    assert first.text == "32 requests parked, layer 2 expert 5-6: a, b, c0, ..."
    assert first.facts == {
        "count": 32,
        "requests": " ".join(["a", "b", *(f"c{n}" for n in range(NAMED - 2))]),
        "layer": 2,
        "expert": "5-6",
        "at": 7.0,
        "source": page["source"],
        "through": 5,
    }
    assert second.text == "1 request parked, layer 3 expert 9: d"
    assert (third.kind, third.seconds) == ("requests_resumed", 0.5)


def test_a_move_names_its_routers() -> None:
    notes = new_notes()
    for name in "ab":
        notes.add(RequestNoteKind.MOVED, [name], text="x was lost, they go on at y", seconds=1.0)
    page = notes.page()
    (event,) = summaries("gateway-0", page["source"], page["notes"])
    assert event.text == "2 requests moved (x was lost, they go on at y): a, b"
    assert "layer" not in event.facts


def test_each_note_is_told_once_also_by_the_next_controller(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    processes = Processes(one=new_notes(), two=new_notes(), gone=None)
    one, two = processes.notes["one"], processes.notes["two"]
    assert one is not None
    assert two is not None

    async def run() -> list[str]:
        chronicle = Chronicle(file, 1, lambda: 0.0)
        events = collector(processes, chronicle)
        one.add(RequestNoteKind.PARKED, ["a"], missing=(1, 1))
        await events.look()
        await events.look()
        two.add(RequestNoteKind.PARKED, ["b"], missing=(1, 1))
        await events.look()
        heir = Chronicle(file, 2, lambda: 0.0)
        events = collector(processes, heir)
        one.add(RequestNoteKind.RESUMED, ["a"], missing=(1, 1), seconds=1.0)
        await events.look()
        # Another process at the address of the first begins to count anew.
        processes.notes["one"] = fresh = new_notes()
        fresh.add(RequestNoteKind.PARKED, ["c"], missing=(1, 1))
        await events.look()
        return [str(entry.facts["requests"]) for entry in heir.entries()]

    assert run_async(run()) == ["a", "b", "a", "c"]


def test_a_page_that_makes_no_sense_hinders_no_other() -> None:
    notes = new_notes()
    notes.add(RequestNoteKind.PARKED, ["a"], missing=(1, 1))

    class Odd(Processes):
        async def read(self, address: str) -> dict[str, Any]:
            if address == "odd":
                return {"source": "x", "notes": [{"number": 1}]}
            if address == "list":
                return []  # type: ignore[return-value]
            return await super().read(address)

    chronicle = Chronicle(None, 1, lambda: 0.0)
    run_async(collector(Odd(odd=None, list=None, one=notes), chronicle).look())
    assert [entry.facts["requests"] for entry in chronicle.entries()] == ["a"]


def test_a_ring_of_notes_is_bounded_and_counts_requests() -> None:
    registry = CollectorRegistry()
    notes = RequestNotes(RouterMetrics(registry).request_notes)
    for number in range(1500):
        notes.add(RequestNoteKind.MOVED, [str(number), "x"])
    page = notes.page()
    assert len(page["notes"]) == 1000
    assert page["notes"][-1]["number"] == 1500
    labels = {"kind": "requests_moved"}
    assert registry.get_sample_value("orrery_router_request_notes_total", labels) == 3000
