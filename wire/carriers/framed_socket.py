"""Enveloped frames over a connected stream socket, read and written on the event loop itself."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable

from wire.carriers.carrier import LOCAL
from wire.envelope import PREFIX_BYTES, Message, message_size
from wire.errors import BadFrameError, InternalError, OrreryError, UnavailableError

_log = logging.getLogger(__name__)
_SCRATCH_BYTES = 1 << 16


class FramedSocket:
    """Implements `Carrier`.

    A message needs no further length in front: its envelope has one. Each is taken in the call
    that has found the socket readable, and written in the call that puts it, so that a small
    message costs one system call at each end and no task, queue or future.

    Not an asyncio transport: in Python 3.11 those move all the rest of a large message down in
    memory after each piece that the kernel has taken.
    """

    name = LOCAL

    def __init__(
        self,
        connection: socket.socket,
        take: Callable[[Message], None],
        lost: Callable[[OrreryError], None],
        written: Callable[[], None] | None = None,
    ) -> None:
        """Reads from now on; needs a running loop.

        Args:
            connection: non-blocking; closed with this.
            take: called with each message, which is its own to keep. What it raises as an
                `OrreryError` ends the connection. Bytes that are no message are taken as one, so
                that they are answered as in any carrier; it is the last one.
            lost: called once, with why, unless `close` comes first.
            written: called once for each message put, when the kernel has taken it.
        """
        self._socket = connection
        self._take = take
        self._lost = lost
        self._written = _ignore if written is None else written
        self._loop = asyncio.get_running_loop()
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._filled = 0
        self._large = memoryview(b"")
        self._waiting: deque[memoryview] = deque()
        self._reading = False
        self._closed = False
        self.resume_reading()

    def put(self, message: Message) -> None:
        if self._closed:
            return
        sent = 0
        if not self._waiting:
            try:
                sent = self._socket.send(message)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                # Not from here: whoever puts is in the middle of something.
                self._loop.call_soon(self._lose, _gone(error))
                return
            if sent == len(message):
                self._written()
                return
            self._loop.add_writer(self._socket, self._writable)
        self._waiting.append(memoryview(message)[sent:])

    def pause_reading(self) -> None:
        """Lets the kernel's buffer fill up, which is what slows a fast peer down.

        What has been read already is still taken: some dozens of messages at most.
        """
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket)

    def resume_reading(self) -> None:
        if not self._reading and not self._closed:
            self._reading = True
            self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        if not self._closed:
            self.pause_reading()
            self._closed = True
            self._loop.remove_writer(self._socket)
            self._waiting.clear()
            self._socket.close()

    def _readable(self) -> None:
        large = self._large
        into = large if large else self._scratch
        try:
            size = self._socket.recv_into(into[self._filled :])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(_gone(error))
            return
        if not size:
            self._lose(UnavailableError("the peer closed the local socket"))
            return
        self._filled += size
        try:
            if not large:
                self._take_small()
            elif self._filled == len(large):
                self._large, self._filled = memoryview(b""), 0
                self._take(large.obj)  # type: ignore[arg-type]
        except OrreryError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001
            # Else the loop would only log it, and this message be taken again with the next one.
            _log.exception("a message was not taken")
            self._lose(InternalError(f"{type(error).__name__}: {error}"))

    def _take_small(self) -> None:
        """Takes every whole message of the scratch; what is left of another moves to its place."""
        scratch, start, end = self._scratch, 0, self._filled
        while end - start >= PREFIX_BYTES:
            try:
                size = message_size(scratch, start)
            except BadFrameError:
                self._take(bytearray(scratch[start:end]))
                raise
            if end - start < size:
                if size > _SCRATCH_BYTES:
                    self._large = memoryview(bytearray(size))
                    self._large[: end - start] = scratch[start:end]
                    self._filled = end - start
                    return
                break
            message = bytearray(scratch[start : start + size])
            start += size
            self._take(message)
            if self._closed:
                return
        if start and start < end:
            scratch[: end - start] = bytes(scratch[start:end])
        self._filled = end - start

    def _writable(self) -> None:
        while self._waiting:
            message = self._waiting[0]
            try:
                sent = self._socket.send(message)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose(_gone(error))
                return
            if sent < len(message):
                self._waiting[0] = message[sent:]
                return
            self._waiting.popleft()
            self._written()
        if not self._closed:
            self._loop.remove_writer(self._socket)

    def _lose(self, error: OrreryError) -> None:
        if not self._closed:
            self.close()
            self._lost(error)


def _gone(error: OSError) -> UnavailableError:
    return UnavailableError(f"the local socket is broken: {error}")


def _ignore() -> None: ...
