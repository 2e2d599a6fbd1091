"""The short way from a message to its answer, for what nearly every message is."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from experts_service.answering import SMALL_BYTES, Answering
from experts_service.status import WorkerState, WorkerStatus
from experts_service.store import ExpertStore, HeldLayer
from kimi_k2.config import ModelConfig
from kimi_k2.numerics import Numerics
from wire.codec import blank_reply, dtype_id, request_sections
from wire.envelope import Message, unwrap
from wire.errors import BadFrameError
from wire.header import FrameKind, Header, unpack_header

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Plain:
    """Of a layer whose experts one kernel computes; most_pairs: of a small request."""

    table: NDArray[np.int64]
    segments: tuple[int, int]
    most_pairs: int


class QuickAnswers:
    """Answers a request by one compiled call that reads the message and writes the answer.

    It does so where nothing is wrong with the request, it is small, and all of its rows are to be
    combined, or none. Of any other message it says nothing: the careful way of `Admission` and
    `Answering` gives the same bits, or finds what is wrong.
    """

    def __init__(
        self,
        config: ModelConfig,
        numerics: Numerics,
        status: WorkerStatus,
        store: ExpertStore,
        answering: Answering,
    ) -> None:
        """Loads the kernel, if there is one for this model and device."""
        self._hidden, self._top_k = config.hidden_size, config.num_experts_per_tok
        self._status = status
        self._store = store
        self._answering = answering
        width = config.moe_intermediate_size
        up = numerics.segments.get((self._hidden, 2 * width))
        down = numerics.segments.get((width, self._hidden))
        # Weights that were evicted must not be kept in memory by what is known of them.
        self._plain: WeakKeyDictionary[HeldLayer, _Plain] = WeakKeyDictionary()
        self._dtype = dtype_id(torch.float32)
        self._segments: tuple[int, int] | None = None
        if numerics.dtype is torch.float32 and up is not None and down is not None:
            from kimi_k2.raw_routing import route_raw

            self._segments, self._route = (up, down), route_raw
            nothing = np.zeros(8, np.int64)
            route_raw(0, 0, 0, 0, 0, 0, 1, 1, True, 1, nothing, nothing, 1, 1, 0)

    def answer(self, message: Message) -> bytearray | None:
        """The encoded answer; None if the message has to go the careful way."""
        if self._segments is None or self._status.state is not WorkerState.READY:
            return None
        try:
            message = unwrap(message)
            header = unpack_header(message)
            if not self._fits(header):
                return None
            places = request_sections(message, header)
        except BadFrameError:
            return None
        held = self._store.layer(header.layer)
        plain = None if held is None else self._plain_of(held, self._segments)
        if held is None or plain is None or header.pairs > plain.most_pairs:
            return None
        try:
            return self._computed(message, header, places, held.slots, plain)
        except Exception:  # noqa: BLE001
            # Whatever it is, such as too little memory: the careful way answers, or says why not.
            _log.exception("a request of layer %d was not computed at once", header.layer)
            return None

    def _fits(self, header: Header) -> bool:
        return (
            header.kind is FrameKind.REQUEST
            and header.dtype == self._dtype
            and header.hidden == self._hidden
            and header.rows > 0
            and header.pairs > 0
            and header.term >= self._status.epoch.term
        )

    def _plain_of(self, held: HeldLayer, segments: tuple[int, int]) -> _Plain | None:
        plain = self._plain.get(held)
        if plain is None:
            table = held.weights.table(*segments)
            if table is None:
                return None
            pair = held.weights.nbytes // len(held.experts) + 4 * self._hidden
            plain = _Plain(table=table, segments=segments, most_pairs=SMALL_BYTES // pair)
            self._plain[held] = plain
        return plain

    def _computed(
        self,
        message: Message,
        header: Header,
        places: list[int],
        slots: NDArray[np.int64],
        plain: _Plain,
    ) -> bytearray | None:
        began = time.perf_counter()
        rows, pairs, hidden = header.rows, header.pairs, self._hidden
        whole = message[places[1]] == 1
        reply, out = blank_reply(
            header.request_id,
            self._status.epoch,
            header.layer,
            rows if whole else pairs,
            hidden,
            torch.float32,
        )
        source = np.frombuffer(message, np.uint8).ctypes.data
        counts, combine, experts, weights, x = (source + place for place in places)
        done = self._route(
            counts,
            combine,
            experts,
            weights,
            x,
            rows,
            pairs,
            self._top_k,
            whole,
            hidden,
            slots,
            plain.table,
            *plain.segments,
            out.data_ptr(),
        )
        if not done:
            return None
        asked = np.frombuffer(message, np.uint16, pairs, places[2])
        self._answering.note(header.layer, asked, rows, time.perf_counter() - began)
        return reply
