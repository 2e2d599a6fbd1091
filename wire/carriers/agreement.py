"""How a router and a worker agree on a local socket: words in the metadata of Dispatch.

The router asks and says which host it runs on; a worker of that host offers a path and a token;
the router connects, shows the token and is welcomed. Wherever this ends early, the stream carries
the messages.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from pathlib import Path

from wire.carriers.carrier import LOCAL, CarrierError

TOKEN_BYTES = 32
WELCOME = b"ORRY\x01"

_CARRIER_KEY, _HOST_KEY = "orrery-carrier", "orrery-host"
_SOCKET_KEY, _TOKEN_KEY = "orrery-socket", "orrery-token"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BUFFER_BYTES = 4 << 20

Metadata = Iterable[tuple[str, str | bytes]]


def this_host() -> str:
    """Equal for two processes under one running kernel; empty where that cannot be told."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def local_wish() -> tuple[tuple[str, str], ...]:
    """Metadata by which a router asks for a local socket."""
    return ((_CARRIER_KEY, LOCAL), (_HOST_KEY, this_host()))


def wants_local(metadata: Metadata) -> bool:
    """Whether a router asks for a local socket, and might reach one of this process."""
    asked = dict(metadata)
    return asked.get(_CARRIER_KEY) == LOCAL and asked.get(_HOST_KEY) == this_host() != ""


def local_answer(path: str, token: bytes) -> tuple[tuple[str, str], ...]:
    """Metadata by which a worker says where to connect, and what to show there."""
    return ((_SOCKET_KEY, path), (_TOKEN_KEY, token.hex()))


async def enter(answer: Metadata, timeout_s: float) -> socket.socket:
    """The router's connection to the socket that a worker's answer names, welcomed there.

    Raises:
        CarrierError: no socket is offered, or it cannot be reached from here.
    """
    offered = dict(answer)
    path, token = offered.get(_SOCKET_KEY), offered.get(_TOKEN_KEY)
    if not isinstance(path, str) or not isinstance(token, str):
        raise CarrierError("the worker offers no local socket")
    connection = local_socket()
    try:
        async with asyncio.timeout(timeout_s):
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, path)
            await loop.sock_sendall(connection, token_of(token))
            if await receive(connection, len(WELCOME)) != WELCOME:
                raise CarrierError(f"not welcome at {path}")
    except TimeoutError:
        connection.close()
        raise CarrierError(f"no welcome at {path} in {timeout_s} s") from None
    except OSError as error:
        connection.close()
        raise CarrierError(f"{path} cannot be reached: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def local_socket() -> socket.socket:
    """A socket as both peers want it: non-blocking, and with room for large messages."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    make_room(made)
    return made


def make_room(connection: socket.socket) -> None:
    """The kernel gives less where its limits are lower."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)


def token_of(text: str) -> bytes:
    """Raises CarrierError for what is no token."""
    try:
        token = bytes.fromhex(text)
    except ValueError:
        raise CarrierError("the worker's token is malformed") from None
    if len(token) != TOKEN_BYTES:
        raise CarrierError("the worker's token is malformed")
    return token


async def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or fewer where the peer closes first."""
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < size:
        piece = await loop.sock_recv(connection, size - len(received))
        if not piece:
            break
        received += piece
    return received
