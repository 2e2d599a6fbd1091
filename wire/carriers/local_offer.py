"""A worker's local socket for one connection of one router."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
import tempfile
from pathlib import Path

from wire.carriers.agreement import (
    TOKEN_BYTES,
    WELCOME,
    local_answer,
    local_socket,
    make_room,
    receive,
)
from wire.carriers.carrier import CarrierError

_LONGEST_PATH = 107


class LocalOffer:
    """Listens until the router is in, or `close`.

    It lies in a directory that only this user may enter, wants a token that travels over gRPC
    alone, and is gone from the file system as soon as the router has connected. So a worker that
    is killed while it serves leaves nothing behind.
    """

    def __init__(self) -> None:
        """Raises CarrierError where no such socket can be made."""
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._listener = local_socket()
        try:
            self._directory = Path(tempfile.mkdtemp(prefix="orrery-"))
        except OSError as error:
            self._listener.close()
            raise CarrierError(f"no directory for a local socket: {error}") from error
        self._path = self._directory / "dispatch"
        try:
            if len(os.fsencode(self._path)) > _LONGEST_PATH:
                raise CarrierError(f"{self._path} is too long for a socket's name")
            self._listener.bind(str(self._path))
            self._listener.listen(1)
        except OSError as error:
            self.close()
            raise CarrierError(f"no local socket at {self._path}: {error}") from error
        except CarrierError:
            self.close()
            raise

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What tells the router where to go."""
        return local_answer(str(self._path), self._token)

    async def accept(self, timeout_s: float) -> socket.socket:
        """The router's connection; whoever does not show the token is turned away.

        Raises:
            CarrierError: it has not come in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
                    if await self._admitted(connection):
                        return connection
        except TimeoutError:
            raise CarrierError("the router did not come to the local socket") from None
        except OSError as error:
            raise CarrierError(f"the local socket is broken: {error}") from error
        finally:
            self.close()

    def close(self) -> None:
        """Takes the socket away; a connection that was accepted stays."""
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        with contextlib.suppress(FileNotFoundError):
            self._directory.rmdir()

    async def _admitted(self, connection: socket.socket) -> bool:
        """Welcomes the router; closes the connection of anybody else."""
        admitted = False
        try:
            connection.setblocking(False)
            make_room(connection)
            if hmac.compare_digest(await receive(connection, TOKEN_BYTES), self._token):
                await asyncio.get_running_loop().sock_sendall(connection, WELCOME)
                admitted = True
        except ConnectionError:
            return False
        finally:
            if not admitted:
                connection.close()
        return admitted
