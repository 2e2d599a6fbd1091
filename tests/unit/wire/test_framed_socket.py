"""Messages over a stream socket arrive whole, in order and bounded, however they are cut."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from tests.support.deadline import run_async, wait_until_async
from wire.carriers.framed_socket import FramedSocket
from wire.envelope import MAX_FRAME_BYTES, Message, message_size, prefix
from wire.errors import BadFrameError, OrreryError, UnavailableError

SIZES = (1, 10, 58, 5000, 65529, 65530, 65531, 70_000, 4 << 20)


def message(size: int, seed: int = 0) -> bytes:
    return prefix(size) + random.Random(seed + size).randbytes(size)


class End:
    """A socket of ours, what it took, and the plain socket at its other end."""

    def __init__(self) -> None:
        ours, self.other = socket.socketpair()
        for end in (ours, self.other):
            end.setblocking(False)
        self.taken: list[Message] = []
        self.lost: list[OrreryError] = []
        self.written = 0
        self.carrier = FramedSocket(ours, self.taken.append, self.lost.append, self._note)

    def _note(self) -> None:
        self.written += 1

    def close(self) -> None:
        self.carrier.close()
        self.other.close()


@pytest.mark.parametrize("seed", range(4))
def test_messages_cut_anywhere(seed: int) -> None:
    run_async(_cut(seed))


async def _cut(seed: int) -> None:
    chance = random.Random(seed)
    sent = [message(chance.choice(SIZES[:-1]), number) for number in range(40)]
    end = End()
    loop = asyncio.get_running_loop()
    stream, at = b"".join(sent), 0
    while at < len(stream):
        piece = chance.choice((1, 5, 63, 4096, 100_000))
        await loop.sock_sendall(end.other, stream[at : at + piece])
        at += piece
        await asyncio.sleep(0)
    await wait_until_async(lambda: len(end.taken) == len(sent), "every message")
    assert end.taken == sent
    # Each is its own to keep: nobody else's bytes come into it later.
    assert len({id(taken) for taken in end.taken}) == len(sent)
    end.close()


def test_both_ways_between_two() -> None:
    run_async(_both_ways())


async def _both_ways() -> None:
    left, right = socket.socketpair()
    for end in (left, right):
        end.setblocking(False)
    taken: list[Message] = []
    lost: list[OrreryError] = []
    echo = FramedSocket(right, lambda got: echo.put(got), lost.append)
    here = FramedSocket(left, taken.append, lost.append)
    sent = [message(size) for size in SIZES]
    for one in sent:
        here.put(one)
    await wait_until_async(lambda: len(taken) == len(sent), "every echo")
    assert taken == sent
    assert lost == []
    here.close()
    await wait_until_async(lambda: len(lost) == 1, "the end to be seen")
    assert isinstance(lost[0], UnavailableError)
    echo.close()


def test_a_slow_reader_is_waited_for() -> None:
    run_async(_slow())


async def _slow() -> None:
    end = End()
    sent = [message(1 << 20, number) for number in range(8)]
    for one in sent:
        end.carrier.put(one)
    await asyncio.sleep(0.05)
    assert end.written < len(sent)
    loop, received = asyncio.get_running_loop(), bytearray()
    while len(received) < sum(map(len, sent)):
        received += await loop.sock_recv(end.other, 1 << 16)
    assert received == b"".join(sent)
    assert end.written == len(sent)
    end.close()


def test_reading_can_pause() -> None:
    run_async(_pause())


async def _pause() -> None:
    end = End()
    end.carrier.pause_reading()
    end.other.send(message(100))
    await asyncio.sleep(0.05)
    assert end.taken == []
    end.carrier.resume_reading()
    await wait_until_async(lambda: len(end.taken) == 1, "the message")
    end.close()


BEYOND = MAX_FRAME_BYTES + 1
GARBAGE = {
    "not ours": b"GET / HTTP/1.1\r\n\r\n",
    "another field": b"\x12" + prefix(9)[1:] + bytes(9),
    "a short varint": b"\x0a\x05hello",
    "beyond the limit": bytes((0x0A, *(0x80 | (BEYOND >> s) & 0x7F for s in (0, 7, 14, 21)), 1)),
    "a sixth byte of length": b"\x0a\x80\x80\x80\x80\x80\x01",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_message_is_taken_and_ends_the_connection(name: str) -> None:
    run_async(_garbage(GARBAGE[name]))


async def _garbage(garbage: bytes) -> None:
    end = End()
    good = message(100)
    end.other.send(good + garbage)
    await wait_until_async(lambda: bool(end.lost), "the loss")
    assert [type(error) for error in end.lost] == [BadFrameError]
    assert end.taken == [good, garbage]
    end.carrier.put(good)
    end.close()


def test_nothing_is_called_after_close() -> None:
    run_async(_closed())


async def _closed() -> None:
    end = End()
    end.other.send(message(10))
    end.carrier.close()
    end.carrier.put(message(10))
    end.carrier.resume_reading()
    await asyncio.sleep(0.05)
    assert (end.taken, end.lost, end.written) == ([], [], 0)
    end.other.close()


def test_what_raises_ends_the_connection() -> None:
    run_async(_raises())


async def _raises() -> None:
    ours, other = socket.socketpair()
    ours.setblocking(False)
    lost: list[OrreryError] = []

    def take(_: Message) -> None:
        raise BadFrameError("not what was asked for")

    FramedSocket(ours, take, lost.append)
    other.send(message(10) * 2)
    await wait_until_async(lambda: bool(lost), "the loss")
    assert [str(error) for error in lost] == ["not what was asked for"]
    other.close()


def test_sizes() -> None:
    for size in (0, 1, 127, 128, 1 << 21, MAX_FRAME_BYTES):
        assert message_size(b"xx" + prefix(size), 2) == 6 + size
