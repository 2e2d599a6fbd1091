"""Events that name requests: what routers and gateways noted of those that a loss touched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import httpx

from cluster.events import Entry
from cluster.signals import Note
from cluster.views import ranges
from monitoring.request_notes import NAMED, PATH, RequestNoteKind

_POLL_S = 1.0
_ANSWER_S = 2.0
_IN_TEXT = 3

_WORDS: Mapping[str, str] = {
    RequestNoteKind.PARKED: "parked",
    RequestNoteKind.RESUMED: "resumed",
    RequestNoteKind.MOVED: "moved",
    RequestNoteKind.FAILED: "ended with an error",
}

_log = logging.getLogger(__name__)


class Pages(Protocol):
    """Reads the notes of a process."""

    async def read(self, address: str) -> dict[str, Any]:
        """`monitoring.request_notes.RequestNotes.page` of the process whose /metrics is at
        `address`.

        Raises:
            httpx.HTTPError, ValueError: it does not answer as it should.
        """
        ...


class HttpPages:
    """`Pages` of living processes."""

    def __init__(self) -> None:
        self._http = httpx.AsyncClient(timeout=_ANSWER_S, trust_env=False)

    async def read(self, address: str) -> dict[str, Any]:
        answer = (await self._http.get(f"http://{address}{PATH}")).raise_for_status()
        page: dict[str, Any] = answer.json()
        return page


class RequestEvents:
    """Makes events of notes, each note once, also over controllers."""

    def __init__(
        self,
        pages: Pages,
        processes: Callable[[], Mapping[str, str]],
        add: Callable[[Note], object],
        past: Iterable[Entry],
    ) -> None:
        """Args:
        processes: name to address of /metrics of those that note something, as of now.
        add: takes each event.
        past: events of former controllers; what is in them is not told again.
        """
        self._pages = pages
        self._processes = processes
        self._add = add
        self._told: dict[str, int] = {}
        for entry in past:
            if source := str(entry.facts.get("source", "")):
                self._told[source] = int(entry.facts["through"])

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_POLL_S)

    async def look(self) -> None:
        """Collects what is new; a process that does not answer is asked the next time."""
        await asyncio.gather(*(self._ask(*process) for process in self._processes().items()))

    async def _ask(self, name: str, address: str) -> None:
        try:
            page = await self._pages.read(address)
            source, told = str(page["source"]), self._told.get(str(page["source"]), 0)
            fresh = [note for note in page["notes"] if note["number"] > told]
            events = summaries(name, source, fresh)
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            _log.debug("%s does not tell of its requests: %s", name, error)
            return
        for event in events:
            self._add(event)
        if fresh:
            self._told[source] = fresh[-1]["number"]


def summaries(name: str, source: str, notes: Sequence[Mapping[str, Any]]) -> list[Note]:
    """One event for all notes of the same kind, layer and cause, in the order of the first ones.

    Its facts name the first requests, how many they are, the layer and the experts that they wait
    or waited for, when it began, and (`source`, `through`) up to which note all has been told.

    Args:
        name: of the process.
        source: as its page has it.
        notes: that have not been told, oldest first, as the page has them.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for note in notes:
        groups.setdefault((note["kind"], note["layer"], note["text"]), []).append(note)
    return [
        _event(name, {"source": source, "through": notes[-1]["number"]}, group)
        for group in groups.values()
    ]


def _event(name: str, told: Mapping[str, Any], notes: Sequence[Mapping[str, Any]]) -> Note:
    first = notes[0]
    count = sum(note["count"] for note in notes)
    requests = [request for note in notes for request in note["requests"]][:NAMED]
    facts: dict[str, Any] = {"count": count, "requests": " ".join(requests), "at": first["time"]}
    words = [f"{count} request{'s' * (count != 1)} {_WORDS[first['kind']]}"]
    if first["layer"] is not None:
        experts = ranges(sorted({note["expert"] for note in notes}))
        facts |= {"layer": first["layer"], "expert": experts}
        words.append(f"layer {first['layer']} expert {experts}")
    shown = ", ".join(requests[:_IN_TEXT]) + ", ..." * (count > _IN_TEXT)
    cause = f" ({first['text']})" if first["text"] else ""
    return Note(
        kind=first["kind"],
        subject=name,
        text=f"{', '.join(words)}{cause}: {shown}",
        seconds=max((n["seconds"] for n in notes if n["seconds"] is not None), default=None),
        facts={**facts, **told},
    )
