"""Outputs on their way to whoever asked for them."""

from __future__ import annotations

from collections.abc import Iterable

from router_service.outputs import OutputSink, RequestOutput
from router_service.sequence import Sequence


def deliver(outputs: Iterable[tuple[Sequence, RequestOutput]]) -> None:
    """Hands each sink all its outputs at once: one message an engine step and stream."""
    by_sink: dict[int, tuple[OutputSink, list[RequestOutput]]] = {}
    for seq, output in outputs:
        by_sink.setdefault(id(seq.sink), (seq.sink, []))[1].append(output)
    for sink, batch in by_sink.values():
        sink.deliver(batch)
