"""The gateway as an ASGI application; runs under Ray Serve and under any ASGI server."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.admission import Admission, Admitted
from gateway.api import Api
from gateway.config import GatewayConfig
from gateway.disconnect import ClientGoneError
from gateway.endpoints import Endpoints
from gateway.errors import TransportError
from gateway.grpc_link import GrpcLink
from gateway.idempotency_key import SeenKeys
from gateway.responses import CLIENT_CLOSED, error_response
from gateway.routers import RouterDirectory, RouterLink, RouterPool
from gateway.served_model import ServedModel
from kimi_k2.errors import ModelError
from monitoring import request_notes
from monitoring.metrics import GatewayMetrics
from monitoring.request_notes import RequestNotes
from monitoring.server import MetricsServer
from wire.errors import InternalError, OrreryError

_log = logging.getLogger(__name__)
PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/health")


def create_asgi(
    config: GatewayConfig,
    directory: RouterDirectory,
    *,
    connect: Callable[[str], RouterLink] = GrpcLink,
    registry: CollectorRegistry | None = None,
) -> Starlette:
    """The application; its lifespan opens and closes the ways to the routers.

    Args:
        directory: where the routers are.
        connect: the way to a router; tests put `MemoryRouter`s here.
        registry: gets the gateway's metrics; a fresh one if None.

    Raises:
        ModelError: the checkpoint's tokenizer, template or generation settings are unusable.
    """
    registry = registry or CollectorRegistry()
    metrics = GatewayMetrics(registry)
    model = ServedModel.load(config)
    pool = RouterPool(directory, connect, poll_s=config.router_poll_s)
    notes = RequestNotes(metrics.request_notes)
    api = Api(config=config, model=model, pool=pool, metrics=metrics, seen=SeenKeys(), notes=notes)
    admission = Admission(metrics.open_requests)
    endpoints = Endpoints(api, admission)
    pages = {request_notes.PATH: notes.page}

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        listen = config.metrics_listen
        server = MetricsServer(registry, listen, pages) if listen else None
        with server or contextlib.nullcontext():
            app.state.metrics_address = server.address if server else ""
            app.state.admission = admission
            await pool.start()
            try:
                yield
            finally:
                await pool.stop()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat_completions, methods=["POST"]),
            Route("/v1/completions", endpoints.completions, methods=["POST"]),
            Route("/v1/models", endpoints.models),
            Route("/v1/models/{model:path}", endpoints.model),
            Route("/health", endpoints.health),
        ],
        middleware=[
            Middleware(Measured, metrics=metrics),
            Middleware(Admitted, admission=admission),
        ],
        exception_handlers={
            OrreryError: _on_error,
            ModelError: _on_error,
            ClientDisconnect: _on_client_gone,
            ClientGoneError: _on_client_gone,
            HTTPException: _on_http_exception,
            Exception: _on_bug,
        },
        lifespan=lifespan,
    )


class Measured:
    """Counts and times every HTTP request."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        # A handler that is cancelled before it answers has lost its client.
        code = str(CLIENT_CLOSED)

        async def watched(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = str(message["status"])
            await send(message)

        path = _label(scope["path"])
        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.http_requests.labels(path=path, code=code).inc()
            self._metrics.request_seconds.labels(path=path).observe(time.monotonic() - start)


def _label(path: str) -> str:
    """A path of ours; what anybody may type must not become a metric's label."""
    if path.startswith("/v1/models/"):
        return "/v1/models"
    return path if path in PATHS else "other"


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, OrreryError | ModelError):
        raise error
    return error_response(error)


async def _on_client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    message = {
        HTTPStatus.NOT_FOUND: f"Unknown path {request.url.path}: the API is under /v1",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not allowed for {request.url.path}",
    }.get(status, error.detail)
    response = error_response(TransportError(status, message))
    response.headers.update(error.headers or {})
    return response


async def _on_bug(request: Request, error: Exception) -> Response:
    _log.error("unexpected error in %s", request.url.path, exc_info=error)
    return error_response(InternalError("The server had an internal error; it has been logged."))
