"""The protobuf envelope of a binary frame, written by hand.

A dispatch message on the wire is a valid `orrery.v1.Frame`: one length-delimited field, number 1.
Writing the tag and the length ourselves saves protobuf's copy of the tensors. The length is
always a five-byte varint (padded with continuation bits, which every protobuf parser accepts),
so that what follows starts at a known offset and the tensors in it are aligned.
"""

from __future__ import annotations

from wire.errors import BadFrameError

PREFIX_BYTES = 6
MAX_FRAME_BYTES = 256 << 20

_TAG = 0x0A
_VARINT_BYTES = 5


def prefix(length: int) -> bytes:
    """Tag and length of a frame of `length` bytes; six bytes whatever the length."""
    if not 0 <= length <= MAX_FRAME_BYTES:
        raise BadFrameError(f"a frame of {length} bytes exceeds the limit of {MAX_FRAME_BYTES}")
    low = [0x80 | ((length >> shift) & 0x7F) for shift in (0, 7, 14, 21)]
    return bytes((_TAG, *low, length >> 28))


def unwrap(message: bytes) -> bytes:
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


def _varint(message: bytes) -> tuple[int, int]:
    """The length in the prefix and the offset after it."""
    value = 0
    for index, byte in enumerate(message[1 : 1 + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, index + 2
    raise BadFrameError("the envelope's length is cut off or too long")
