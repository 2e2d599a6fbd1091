"""The fixed header of a binary frame.

Little-endian, 58 bytes: with the envelope's six the sections behind it start at byte 64 of the
message. The fields mean the same for every kind of frame; a kind leaves those it has no use for
at zero.

    magic        4 bytes  "ORRY"
    version      u8       1
    kind         u8       1 request, 2 reply, 3 error
    dtype        u8       1 float32, 2 bfloat16, 0 no tensor
    reserved     u8       0
    request_id   u64      chosen by the router, unique on its stream, never 0
    term         u64      the sender's epoch
    counter      u64
    layer        u16      the checkpoint's layer number
    reserved     u16      0
    rows         u32      rows of the tensor
    hidden       u32      elements of a row
    pairs        u32      (row, expert) pairs
    body         u32      bytes after the header
    reserved     6 bytes  0
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from wire.envelope import PREFIX_BYTES, Message, prefix
from wire.errors import BadFrameError
from wire.placement import Epoch

MAGIC = b"ORRY"
VERSION = 1
HEADER_BYTES = 58
BODY_START = PREFIX_BYTES + HEADER_BYTES

_LAYOUT = struct.Struct("<4sBBBBQQQHHIIII6s")
_REQUEST_ID = struct.Struct("<Q")
_REQUEST_ID_AT = PREFIX_BYTES + 8
_NOTHING = bytes(6)


class FrameKind(enum.IntEnum):
    REQUEST = 1
    REPLY = 2
    ERROR = 3


_KINDS = {kind.value: kind for kind in FrameKind}


class Header(NamedTuple):
    """See the module's table; sizes are counts, `body` is bytes.

    A tuple, since one is made for every message and a frozen dataclass takes ten times as long.
    """

    kind: FrameKind
    dtype: int
    request_id: int
    term: int
    counter: int
    layer: int
    rows: int
    hidden: int
    pairs: int
    body: int


def start_of_message(
    kind: FrameKind,
    dtype: int,
    request_id: int,
    epoch: Epoch,
    layer: int,
    rows: int,
    hidden: int,
    pairs: int,
    body: int,
) -> bytes:
    """The envelope's prefix and the header: the first 64 bytes of a message.

    Raises:
        BadFrameError: the frame would exceed the limit.
    """
    return prefix(HEADER_BYTES + body) + _LAYOUT.pack(
        *(MAGIC, VERSION, kind, dtype, 0, request_id, epoch.term, epoch.counter),
        *(layer, 0, rows, hidden, pairs, body, _NOTHING),
    )


def unpack_header(message: Message, *, may_lack_request: bool = False) -> Header:
    """The header of an unwrapped message.

    `may_lack_request` admits request_id 0, which an error about an unreadable frame carries.

    Raises:
        BadFrameError: too short, another magic or version, an unknown kind, reserved bytes in
            use, or a body of another length than announced.
    """
    if len(message) < BODY_START:
        raise BadFrameError(f"a frame of {len(message) - PREFIX_BYTES} bytes has no whole header")
    (
        magic,
        version,
        kind,
        dtype,
        reserved_a,
        request_id,
        term,
        counter,
        layer,
        reserved_b,
        rows,
        hidden,
        pairs,
        body,
        reserved_c,
    ) = _LAYOUT.unpack_from(message, PREFIX_BYTES)
    if magic != MAGIC:
        raise BadFrameError(f"magic is {magic!r}, expected {MAGIC!r}")
    if version != VERSION:
        raise BadFrameError(f"frame version {version}, this process speaks {VERSION}")
    if kind not in _KINDS:
        raise BadFrameError(f"unknown frame kind {kind}")
    if reserved_a or reserved_b or reserved_c != _NOTHING:
        raise BadFrameError("reserved header bytes are not zero")
    if request_id == 0 and not may_lack_request:
        raise BadFrameError("request_id 0 is reserved")
    if body != len(message) - BODY_START:
        raise BadFrameError(
            f"the header announces a body of {body} bytes, it has {len(message) - BODY_START}"
        )
    return Header(_KINDS[kind], dtype, request_id, term, counter, layer, rows, hidden, pairs, body)


def peek_request_id(message: Message) -> int:
    """The request_id of an unwrapped message that may be malformed; 0 if there is none to read.

    Lets a typed error find its request even where the frame cannot be decoded.
    """
    if len(message) < BODY_START or message[PREFIX_BYTES : PREFIX_BYTES + 4] != MAGIC:
        return 0
    return int(_REQUEST_ID.unpack_from(message, _REQUEST_ID_AT)[0])
