"""The hand-written envelope is what protobuf reads and writes."""

from __future__ import annotations

import pytest

from wire.envelope import MAX_FRAME_BYTES, PREFIX_BYTES, prefix, unwrap
from wire.errors import BadFrameError
from wire.generated import orrery_pb2 as pb


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 2_097_151, 2_097_152, 3_000_000])
def test_protobuf_reads_it(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    message = prefix(size) + payload[:size]
    assert pb.Frame.FromString(message).frame == payload[:size]


@pytest.mark.parametrize("size", [1, 127, 128, 16384, 3_000_000])
def test_it_reads_protobuf(size: int) -> None:
    payload = b"\x5a" * size
    message = unwrap(pb.Frame(frame=payload).SerializeToString())
    assert message[PREFIX_BYTES:] == payload
    assert message[:PREFIX_BYTES] == prefix(size)


def test_its_own_messages_are_not_copied() -> None:
    message = prefix(5) + b"hello"
    assert unwrap(message) is message


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x0a",
        b"\x12\x01a",
        b"\x0a\x05abc",
        b"\x0a\x02abc",
        b"\x0a\x80\x80\x80\x80\x80\x00",
        prefix(3) + b"abcd",
        pb.Frame(frame=b"abc").SerializeToString() * 2,
    ],
)
def test_anything_else_is_refused(message: bytes) -> None:
    with pytest.raises(BadFrameError):
        unwrap(message)


def test_a_frame_over_the_limit_is_not_written() -> None:
    with pytest.raises(BadFrameError, match="exceeds the limit"):
        prefix(MAX_FRAME_BYTES + 1)
