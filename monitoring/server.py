"""The port of one process's metrics.

A thread of its own, so that a scrape is answered while the event loop computes, and one port a
process, since one endpoint in front of several replicas would hit one of them at random.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Json: TypeAlias = "dict[str, Any] | list[Any] | str | int | float | bool | None"

_log = logging.getLogger(__name__)
_SILENT_CLIENT_SECONDS = 5.0
_POLL_SECONDS = 0.05


class ListenError(Exception):
    """The address cannot be listened on; the message names it and says why."""


class MetricsServer:
    """Serves `/metrics`, `/healthz` and JSON debug pages of one process."""

    def __init__(
        self,
        registry: CollectorRegistry,
        listen: str = "127.0.0.1:0",
        debug: Mapping[str, Callable[[], Json]] | None = None,
    ) -> None:
        """Binds nothing yet; `start` does.

        Args:
            registry: what `/metrics` shows.
            listen: host:port; port 0 takes a free one.
            debug: path to a function whose result is served as JSON, e.g. `/debug/experts`.
                Called in a thread of this server, so it reads what it shows without awaiting.
        """
        self._registry = registry
        self._listen = listen
        self._debug = dict(debug or {})
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """host:port that is really listened on.

        Raises:
            RuntimeError: before `start` or after `stop`.
        """
        if self._server is None:
            raise RuntimeError("the metrics server is not started")
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        """Listens and answers from a background thread; a second call does nothing.

        Raises:
            ListenError: the address is malformed, in use or not this machine's.
        """
        if self._server is not None:
            return
        host, port = _split(self._listen)
        try:
            self._server = _Server((host, port), self._registry, self._debug)
        except OSError as error:
            raise ListenError(f"cannot serve metrics at {self._listen}: {error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Closes the port and every connection, then waits for the threads; idempotent."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None or thread is None:
            return
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    # Joined by server_close: a daemon thread that outlived it would leak its socket.
    daemon_threads = False

    def __init__(
        self,
        address: tuple[str, int],
        registry: CollectorRegistry,
        debug: Mapping[str, Callable[[], Json]],
    ) -> None:
        self.registry = registry
        self.debug = debug
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which can hang without a resolver.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends the reads of clients that say nothing, so that their threads end."""
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # the client was faster
                    _log.debug("metrics connection already gone")

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.warning("a metrics request of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENT_CLIENT_SECONDS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, encode(self.server.registry), content_type)
        elif path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n", "text/plain; charset=utf-8")
        elif path in self.server.debug:
            self._debug(self.server.debug[path])
        else:
            known = ", ".join(["/metrics", "/healthz", *self.server.debug])
            body = f"no such page; there are {known}\n".encode()
            self._answer(HTTPStatus.NOT_FOUND, body, "text/plain; charset=utf-8")

    def _debug(self, page: Callable[[], Json]) -> None:
        try:
            body = json.dumps(page()).encode()
        except Exception:
            self._answer(
                HTTPStatus.INTERNAL_SERVER_ERROR, b"the page failed; see the log\n", "text/plain"
            )
            raise
        self._answer(HTTPStatus.OK, body, "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


def _split(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ListenError(f"cannot serve metrics at {listen!r}: give host:port, e.g. 127.0.0.1:0")
    return host.strip("[]"), int(port)
