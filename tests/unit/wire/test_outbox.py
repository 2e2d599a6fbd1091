"""Messages leave in order, one at a time, the first at once."""

from __future__ import annotations

import asyncio

from tests.support.deadline import run_async
from wire.carriers.outbox import Outbox


class Stream:
    """Takes a message at once; a write ends when its future does."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.futures: list[asyncio.Future[None]] = []
        self.written = 0

    async def write(self, message: bytes) -> None:
        if message == b"bad":
            raise ConnectionError("the stream has ended")
        self.taken.append(message)
        self.futures.append(asyncio.get_running_loop().create_future())
        await self.futures[-1]

    def note(self) -> None:
        self.written += 1


def test_the_next_write_waits_for_the_last() -> None:
    run_async(_in_order())


async def _in_order() -> None:
    stream = Stream()
    outbox = Outbox(stream.write, stream.note, (ConnectionError,))
    outbox.put(b"1")
    assert stream.taken == [b"1"]
    outbox.put(b"bad")
    outbox.put(b"2")
    assert stream.taken == [b"1"]
    stream.futures[0].set_result(None)
    await asyncio.sleep(0)
    assert stream.taken == [b"1", b"2"]
    assert stream.written == 2
    stream.futures[1].set_exception(ConnectionError("lost"))
    await asyncio.sleep(0)
    assert stream.written == 3


def test_nothing_leaves_after_close() -> None:
    run_async(_closed())


async def _closed() -> None:
    stream = Stream()
    outbox = Outbox(stream.write, stream.note, ())
    outbox.put(b"1")
    outbox.put(b"2")
    outbox.close()
    outbox.put(b"3")
    stream.futures[0].set_result(None)
    await asyncio.sleep(0)
    assert stream.taken == [b"1"]
    assert stream.written == 0
