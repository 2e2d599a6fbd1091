"""An ASGI application behind a real HTTP server, in a thread of the test's process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from tests.support.deadline import wait_until


@contextlib.contextmanager
def serve_http(app: ASGIApp) -> Iterator[str]:
    """Serves on a free port of the loopback; gives the base URL."""
    config = uvicorn.Config(app, log_level="warning", ws="none", lifespan="on")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started or not thread.is_alive(), "the HTTP server")
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(20)
            if thread.is_alive():
                raise TimeoutError("the HTTP server did not stop")
