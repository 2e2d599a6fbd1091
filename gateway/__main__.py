"""`python -m gateway`: the HTTP server without Ray, in front of routers named by address."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from gateway.config import GatewayConfig
from gateway.http import create_asgi
from gateway.routers import StaticDirectory
from kimi_k2.errors import ModelError
from monitoring.server import ListenError

_GRACE_S = 30
_GOODBYE_S = 2


def main() -> int:
    """Serves until SIGTERM or SIGINT, then finishes what it has; the exit status."""
    arguments = _parser().parse_args()
    config = GatewayConfig(
        model=arguments.model,
        model_name=arguments.model_name,
        metrics_listen=arguments.metrics_listen,
    )
    try:
        app = create_asgi(config, StaticDirectory(tuple(arguments.routers)))
        with _bound(arguments.listen) as listener:
            server = _Server(
                uvicorn.Config(
                    app,
                    log_level="warning",
                    ws="none",
                    lifespan="on",
                    timeout_graceful_shutdown=_GOODBYE_S,
                ),
                app,
            )
            asyncio.run(server.serve(sockets=[listener]))
    except (ModelError, ListenError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """Says when it is ready; on a signal finishes what it has and refuses the rest, then ends with
    status 0. A second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._app = app
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started or not sockets:
            return
        host, port = sockets[0].getsockname()[:2]
        event = {"event": "ready", "address": f"{host}:{port}", "pid": os.getpid()}
        print(json.dumps(event), flush=True)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)

    def _end(self) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        await self._app.state.admission.drain(_GRACE_S)
        self.should_exit = True


def _bound(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host or "127.0.0.1", int(port)))
    except (OSError, ValueError, OverflowError) as error:
        listener.close()
        raise ListenError(f"cannot listen on {listen}: {error}") from error
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway",
        description=__doc__,
        epilog="example: python -m gateway --model models/nano-k2 --routers 127.0.0.1:9000",
    )
    parser.add_argument("--model", type=Path, required=True, help="checkpoint directory")
    parser.add_argument("--model-name", default="", help="default: the directory's name")
    parser.add_argument("--routers", nargs="+", required=True, metavar="HOST:PORT")
    parser.add_argument("--listen", default="127.0.0.1:8000", help="port 0 takes a free one")
    parser.add_argument("--metrics-listen", default="", metavar="HOST:PORT")
    return parser


if __name__ == "__main__":
    sys.exit(main())
