"""The port of one process's metrics.

A thread of its own, so that a scrape is answered while the event loop computes, and one port a
process, since one endpoint in front of several replicas would hit one of them at random.
"""

from __future__ import annotations

import hmac
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder

Json: TypeAlias = "dict[str, Any] | list[Any] | str | int | float | bool | None"

_log = logging.getLogger(__name__)
_SILENT_CLIENT_SECONDS = 5.0
_POLL_SECONDS = 0.05
_MOST_BODY = 1 << 16


class ListenError(Exception):
    """The address cannot be listened on; the message names it and says why."""


class RefusedError(Exception):
    """A command that cannot be carried out; the message says why, for whoever gave it."""


@dataclass(frozen=True, kw_only=True)
class Commands:
    """What whoever knows the secret may post, as JSON objects.

    token: the secret, sent as `Authorization: Bearer ...`.
    paths: path to a function of the object that returns what is answered. Called in a thread of
        the server; raises `RefusedError`.
    """

    token: str
    paths: Mapping[str, Callable[[Mapping[str, Any]], Json]]


class MetricsServer:
    """Serves `/metrics`, `/healthz` and JSON debug pages of one process."""

    def __init__(
        self,
        registry: CollectorRegistry,
        listen: str = "127.0.0.1:0",
        debug: Mapping[str, Callable[[], Json]] | None = None,
        series: Mapping[str, Callable[[], str]] | None = None,
        commands: Commands | None = None,
    ) -> None:
        """Binds nothing yet; `start` does.

        Args:
            registry: what `/metrics` shows.
            listen: host:port; port 0 takes a free one.
            debug: path to a function whose result is served as JSON, e.g. `/debug/experts`.
                Called in a thread of this server, so it reads what it shows without awaiting.
            series: path to a function that gives further series as Prometheus text, for scrapes
                of their own; called as those of `debug`.
            commands: what may be posted.
        """
        self._registry = registry
        self._listen = listen
        self._pages = _Pages(dict(debug or {}), dict(series or {}), commands)
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
            self._server = _Server((host, port), self._registry, self._pages)
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


@dataclass(frozen=True)
class _Pages:
    debug: Mapping[str, Callable[[], Json]]
    series: Mapping[str, Callable[[], str]]
    commands: Commands | None


class _Server(ThreadingHTTPServer):
    # Joined by server_close: a daemon thread that outlived it would leak its socket.
    daemon_threads = False

    def __init__(
        self,
        address: tuple[str, int],
        registry: CollectorRegistry,
        pages: _Pages,
    ) -> None:
        self.registry = registry
        self.pages = pages
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
        elif path in self.server.pages.debug:
            page = self.server.pages.debug[path]
            self._page(lambda: json.dumps(page()), "application/json")
        elif path in self.server.pages.series:
            self._page(self.server.pages.series[path], CONTENT_TYPE_PLAIN_0_0_4)
        else:
            pages = self.server.pages
            known = ", ".join(["/metrics", "/healthz", *pages.debug, *pages.series])
            body = f"no such page; there are {known}\n".encode()
            self._answer(HTTPStatus.NOT_FOUND, body, "text/plain; charset=utf-8")

    def do_POST(self) -> None:
        commands = self.server.pages.commands
        path = self.path.partition("?")[0]
        if commands is None or path not in commands.paths:
            self._answer(HTTPStatus.NOT_FOUND, b"no such command\n", "text/plain; charset=utf-8")
            return
        given = self.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {commands.token}".encode()):
            self._tell(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong")
            return
        try:
            length = int(self.headers.get("Content-Length", "0"))
            body = json.loads(self.rfile.read(length) if 0 < length <= _MOST_BODY else b"{}")
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._tell(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
            return
        try:
            answer = commands.paths[path](body)
        except RefusedError as error:
            self._tell(HTTPStatus.CONFLICT, str(error))
            return
        self._answer(HTTPStatus.OK, json.dumps(answer).encode(), "application/json")

    def _tell(self, status: HTTPStatus, error: str) -> None:
        # What is left of a body that was not read must not be taken for the next request.
        self.close_connection = True
        self._answer(status, json.dumps({"error": error}).encode(), "application/json")

    def _page(self, make: Callable[[], str], content_type: str) -> None:
        try:
            body = make().encode()
        except Exception:
            self._answer(
                HTTPStatus.INTERNAL_SERVER_ERROR, b"the page failed; see the log\n", "text/plain"
            )
            raise
        self._answer(HTTPStatus.OK, body, content_type)

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
