"""The protobuf envelope of a binary frame, written by hand.

A dispatch message on the wire is a valid `orrery.v1.Frame`: one length-delimited field, number 1.
Writing the tag and the length ourselves saves protobuf's copy of the tensors. The length is
always a five-byte varint (padded with continuation bits, which every protobuf parser accepts),
so that what follows starts at a known offset and the tensors in it are aligned.
"""

from __future__ import annotations

from typing import TypeAlias

from wire.errors import BadFrameError

Message: TypeAlias = bytes | bytearray
"""One enveloped frame."""

PREFIX_BYTES = 6
MAX_FRAME_BYTES = 256 << 20

_TAG = 0x0A
_VARINT_BYTES = 5


def prefix(length: int) -> bytes:
    """Tag and length of a frame of `length` bytes; six bytes whatever the length."""
    if not 0 <= length <= MAX_FRAME_BYTES:
        raise BadFrameError(f"a frame of {length} bytes exceeds the limit of {MAX_FRAME_BYTES}")
    return bytes(
        (
            _TAG,
            length & 0x7F | 0x80,
            length >> 7 & 0x7F | 0x80,
            length >> 14 & 0x7F | 0x80,
            length >> 21 & 0x7F | 0x80,
            length >> 28,
        )
    )


def message_size(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    """Bytes of the whole message that begins at `start`, of which PREFIX_BYTES are there.

    For carriers that do not keep messages apart themselves, and want the six-byte form.

    Raises:
        BadFrameError: no such prefix, or a frame beyond the limit: nobody can tell where the next
            message begins.
    """
    tag, a, b, c, d, e = data[start : start + PREFIX_BYTES]
    if tag != _TAG or not a & b & c & d & 0x80 or e & 0x80:
        raise BadFrameError("the message is not an orrery.v1.Frame in the six-byte form")
    length = a & 0x7F | (b & 0x7F) << 7 | (c & 0x7F) << 14 | (d & 0x7F) << 21 | e << 28
    if length > MAX_FRAME_BYTES:
        raise BadFrameError(f"a frame of {length} bytes exceeds the limit of {MAX_FRAME_BYTES}")
    return PREFIX_BYTES + length


def unwrap(message: Message) -> Message:
    """The message with its prefix in the six-byte form, so that the frame starts at byte six.

    Peers that use an ordinary protobuf library write a shorter prefix; their message is copied
    once. Ours is returned as it is.

    Raises:
        BadFrameError: `message` is not exactly one `Frame` with one non-empty `frame` field.
    """
    if not message:
        raise BadFrameError("empty message")
    if message[0] != _TAG:
        raise BadFrameError("the message is not an orrery.v1.Frame")
    length, start = _varint(message)
    if length != len(message) - start:
        raise BadFrameError(
            f"the envelope announces {length} bytes, {len(message) - start} follow it"
        )
    if start == PREFIX_BYTES:
        return message
    return prefix(length) + message[start:]


def _varint(message: Message) -> tuple[int, int]:
    """The length in the prefix and the offset after it."""
    value = 0
    for index, byte in enumerate(message[1 : 1 + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, index + 2
    raise BadFrameError("the envelope's length is cut off or too long")
