"""Frames to messages and back, with no copy of a tensor but the one into the message.

Layout of a body, each section padded to a multiple of 16 bytes:

    request   counts u8[rows] · combine u8[rows] · experts u16[pairs] · weights f32[pairs] · x
    reply     rows
    error     expert i32 (-1: none) · length of code u16 · length of message u16 · code · message
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Iterable
from itertools import accumulate, compress
from operator import ge
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wire.envelope import MAX_FRAME_BYTES, Message, unwrap
from wire.errors import BadFrameError
from wire.frames import DispatchReply, DispatchRequest, ErrorReply
from wire.header import BODY_START, FrameKind, Header, start_of_message, unpack_header
from wire.placement import Epoch

_ALIGNMENT = 16
_PADS = tuple(bytes(size) for size in range(_ALIGNMENT))
_DTYPES = {1: torch.float32, 2: torch.bfloat16}
_DTYPE_IDS = {dtype: number for number, dtype in _DTYPES.items()}
_MANY_PAIRS = 32
_ERROR_LAYOUT = struct.Struct("<iHH")


def encode_request(request: DispatchRequest) -> bytes:
    """The message for a request; one copy of `x`."""
    return request_message(
        request.request_id,
        request.epoch,
        request.layer,
        request.x,
        request.counts.tobytes(),
        request.combine.tobytes(),
        request.experts,
        request.weights,
    )


def request_message(
    request_id: int,
    epoch: Epoch,
    layer: int,
    x: Tensor,
    counts: bytes,
    combine: bytes,
    experts: NDArray[np.uint16],
    weights: NDArray[np.float32],
) -> bytes:
    """The same from the parts of a request, contiguous and in any shape."""
    rows, hidden = x.shape
    pairs = experts.size
    of_rows, of_ids, of_weights = -rows & 15, -2 * pairs & 15, -4 * pairs & 15
    raw = _raw(x)
    of_x = -raw.nbytes & 15
    body = 2 * (rows + of_rows) + 6 * pairs + of_ids + of_weights + raw.nbytes + of_x
    head = start_of_message(
        FrameKind.REQUEST, dtype_id(x.dtype), request_id, epoch, layer, rows, hidden, pairs, body
    )
    parts: tuple[Any, ...] = (
        *(head, counts, _PADS[of_rows], combine, _PADS[of_rows]),
        *(experts, _PADS[of_ids], weights, _PADS[of_weights], raw, _PADS[of_x]),
    )
    return b"".join(parts)


def encode_reply(reply: DispatchReply) -> bytes:
    """The message for a reply; one copy of `rows`."""
    rows, hidden = reply.rows.shape
    raw = _raw(reply.rows)
    padding = -raw.nbytes & 15
    head = start_of_message(
        *(FrameKind.REPLY, dtype_id(reply.rows.dtype), reply.request_id, reply.epoch, reply.layer),
        *(rows, hidden, 0, raw.nbytes + padding),
    )
    parts: tuple[Any, ...] = (head, raw, _PADS[padding])
    return b"".join(parts)


def blank_reply(
    request_id: int, epoch: Epoch, layer: int, rows: int, hidden: int, dtype: torch.dtype
) -> tuple[bytearray, Tensor]:
    """The message for a reply whose rows are still zero, and its rows [rows, hidden], to be
    computed in place: that saves the copy."""
    size = rows * hidden * dtype.itemsize
    body = size + -size % _ALIGNMENT
    message = bytearray(BODY_START + body)
    message[:BODY_START] = start_of_message(
        FrameKind.REPLY, dtype_id(dtype), request_id, epoch, layer, rows, hidden, 0, body
    )
    tensor = torch.frombuffer(message, dtype=dtype, count=rows * hidden, offset=BODY_START)
    return message, tensor.view(rows, hidden)


def encode_error(error: ErrorReply) -> bytes:
    """The message for an error; over-long texts are cut."""
    code = error.code.encode()[:256]
    text = error.message.encode()[:4096].decode(errors="ignore").encode()
    expert = -1 if error.expert is None else error.expert
    body = _ERROR_LAYOUT.pack(expert, len(code), len(text)) + code + text
    head = start_of_message(
        FrameKind.ERROR, 0, error.request_id, Epoch(term=0, counter=0), 0, 0, 0, 0, len(body)
    )
    return head + body


def decode_request(message: Message) -> DispatchRequest:
    """The request in a message, every count and id checked as far as the frame alone allows.

    Raises:
        BadFrameError: anything malformed; nothing of the frame is used then.
    """
    message = unwrap(message)
    header = unpack_header(message)
    if header.kind is not FrameKind.REQUEST:
        raise BadFrameError(f"a worker takes requests, this is kind {header.kind.name.lower()}")
    dtype = _dtype(header)
    if header.rows == 0 or header.hidden == 0 or header.pairs == 0:
        raise BadFrameError(
            f"empty request: {header.rows} rows of {header.hidden}, {header.pairs} pairs"
        )
    at_counts, at_combine, at_experts, at_weights, at_x = request_sections(message, header)
    counts = np.frombuffer(message, np.uint8, header.rows, at_counts)
    flags = np.frombuffer(message, np.uint8, header.rows, at_combine)
    experts = np.frombuffer(message, np.uint16, header.pairs, at_experts)
    weights = np.frombuffer(message, np.float32, header.pairs, at_weights)
    _check_rows(
        message[at_counts : at_counts + header.rows],
        message[at_combine : at_combine + header.rows],
        experts,
        weights,
    )
    return DispatchRequest(
        request_id=header.request_id,
        epoch=Epoch(term=header.term, counter=header.counter),
        layer=header.layer,
        x=_tensor(message, dtype, header, at_x),
        counts=counts,
        combine=flags.view(np.bool_),
        experts=experts,
        weights=weights,
    )


def request_sections(message: Message, header: Header) -> list[int]:
    """Where counts, combine flags, experts, weights and rows of a request start in its message.

    Raises:
        BadFrameError: they are not as long as the header says.
    """
    sizes = (
        header.rows,
        header.rows,
        2 * header.pairs,
        4 * header.pairs,
        header.rows * header.hidden * _dtype(header).itemsize,
    )
    return _offsets(message, sizes)


def decode_answer(message: Message) -> DispatchReply | ErrorReply:
    """The reply or error in a message from a worker.

    Raises:
        BadFrameError: anything malformed.
    """
    message = unwrap(message)
    header = unpack_header(message, may_lack_request=True)
    if header.kind is FrameKind.ERROR:
        return _error(message, header)
    if header.kind is not FrameKind.REPLY or header.request_id == 0:
        raise BadFrameError("a router takes replies and errors")
    dtype = _dtype(header)
    if header.rows == 0 or header.hidden == 0 or header.pairs:
        raise BadFrameError(f"malformed reply of {header.rows} rows of {header.hidden}")
    (start,) = _offsets(message, (header.rows * header.hidden * dtype.itemsize,))
    return DispatchReply(
        request_id=header.request_id,
        epoch=Epoch(term=header.term, counter=header.counter),
        layer=header.layer,
        rows=_tensor(message, dtype, header, start),
    )


def _offsets(message: Message, sizes: tuple[int, ...]) -> list[int]:
    """Where each section starts; the sections must fill the message exactly."""
    offsets = []
    at = BODY_START
    for size in sizes:
        offsets.append(at)
        at += size + -size % _ALIGNMENT
    if at != len(message):
        raise BadFrameError(f"the sections need {at - BODY_START} bytes of body, not the given")
    return offsets


def _check_rows(
    counts: Message, flags: Message, experts: NDArray[np.uint16], weights: NDArray[np.float32]
) -> None:
    """For a few rows on plain Python numbers, where that is much quicker than numpy is."""
    if 0 in counts:
        raise BadFrameError(f"row {counts.index(0)} asks for no expert")
    if max(flags) > 1:
        raise BadFrameError("a combine flag is neither 0 nor 1")
    ends = tuple(accumulate(counts))
    if ends[-1] != len(experts):
        raise BadFrameError(f"the rows ask for {ends[-1]} pairs, the frame holds {len(experts)}")
    if len(experts) > _MANY_PAIRS:
        falls: Iterable[int] = (np.flatnonzero(experts[:-1] >= experts[1:]) + 1).tolist()
        total = float(weights.sum(dtype=np.float64))
    else:
        ids = experts.tolist()
        falls = compress(range(1, len(ids)), map(ge, ids, ids[1:]))
        total = sum(weights.tolist())
    if not set(ends).issuperset(falls):
        raise BadFrameError("experts do not ascend within a row")
    # In double precision no sum of float32 overflows.
    if not math.isfinite(total):
        raise BadFrameError("a weight is not finite")


def _error(message: Message, header: Header) -> ErrorReply:
    if header.body < _ERROR_LAYOUT.size:
        raise BadFrameError("an error frame without a body")
    expert, code_bytes, text_bytes = _ERROR_LAYOUT.unpack_from(message, BODY_START)
    start = BODY_START + _ERROR_LAYOUT.size
    if start + code_bytes + text_bytes != len(message):
        raise BadFrameError("an error frame whose texts do not fill it")
    code = message[start : start + code_bytes].decode(errors="replace")
    text = message[start + code_bytes :].decode(errors="replace")
    return ErrorReply(
        request_id=header.request_id,
        code=code,
        message=text,
        expert=None if expert < 0 else expert,
    )


def _dtype(header: Header) -> torch.dtype:
    dtype = _DTYPES.get(header.dtype)
    if dtype is None:
        raise BadFrameError(f"unknown dtype {header.dtype}")
    if header.rows * header.hidden * dtype.itemsize > MAX_FRAME_BYTES:
        raise BadFrameError(f"{header.rows} rows of {header.hidden} exceed the frame limit")
    return dtype


def dtype_id(dtype: torch.dtype) -> int:
    """The header's number for a dtype; raises BadFrameError for one that does not travel."""
    number = _DTYPE_IDS.get(dtype)
    if number is None:
        raise BadFrameError(f"{dtype} does not travel on the wire")
    return number


def _raw(x: Tensor) -> NDArray[np.uint8]:
    return x.contiguous().view(torch.uint8).numpy()


def _tensor(message: Message, dtype: torch.dtype, header: Header, offset: int) -> Tensor:
    flat = torch.frombuffer(message, dtype=dtype, count=header.rows * header.hidden, offset=offset)
    return flat.view(header.rows, header.hidden)


def _accept_read_only_views() -> None:
    # torch warns, once a process, that views of `bytes` must not be written to. They never are
    # here, and a copy of each frame would be the price of the warning's absence.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.frombuffer(b"\0", dtype=torch.uint8)


_accept_read_only_views()
