"""Method tables of the gRPC services, for servers and clients.

Built from the message classes instead of generated service code, so that machines with another
grpcio version need no other files, and so that Dispatch can hand over raw bytes.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from wire.errors import OrreryError
from wire.generated import orrery_pb2 as pb
from wire.status import CODE_KEY, status_of

EXPERT_WORKER = "orrery.v1.ExpertWorker"
ROUTER = "orrery.v1.Router"

# What a stream's `read` returns at its end; an empty message is not that.
END_OF_STREAM: object = grpc.aio.EOF  # type: ignore[attr-defined]

Reply = TypeVar("Reply", bound=Message)

Context = grpc.aio.ServicerContext[Any, Any]


class ExpertWorkerServicer(Protocol):
    """The server side of `orrery.v1.ExpertWorker`; any `OrreryError` becomes its status."""

    async def dispatch(self, frames: AsyncIterator[bytes], context: Context) -> None:
        """Serves one stream until the router closes it; reads and writes enveloped frames."""
        ...

    async def describe(self, request: pb.DescribeRequest) -> pb.WorkerDescription: ...

    async def load(self, request: pb.LoadRequest) -> pb.WorkerDescription: ...

    async def evict(self, request: pb.EvictRequest) -> pb.WorkerDescription: ...

    async def drain(self, request: pb.DrainRequest) -> pb.DrainResponse: ...


class RouterServicer(Protocol):
    """The server side of `orrery.v1.Router`; any `OrreryError` becomes its status."""

    async def generate(self, requests: AsyncIterator[pb.GenerateRequest], context: Context) -> None:
        """Serves one gateway's stream until it closes; writes a StepOutput an engine step."""
        ...

    async def set_placement(self, request: pb.Placement) -> pb.RouterDescription: ...

    async def describe(self, request: pb.DescribeRequest) -> pb.RouterDescription: ...

    async def drain(self, request: pb.DrainRequest) -> pb.DrainResponse: ...


def add_expert_worker(server: grpc.aio.Server, servicer: ExpertWorkerServicer) -> None:
    """Registers an expert worker's methods."""
    handlers = {
        "Dispatch": grpc.stream_stream_rpc_method_handler(_stream(servicer.dispatch)),
        "Describe": _unary(servicer.describe, pb.DescribeRequest),
        "Load": _unary(servicer.load, pb.LoadRequest),
        "Evict": _unary(servicer.evict, pb.EvictRequest),
        "Drain": _unary(servicer.drain, pb.DrainRequest),
    }
    _add(server, EXPERT_WORKER, handlers)


def add_router(server: grpc.aio.Server, servicer: RouterServicer) -> None:
    """Registers a router's methods."""
    handlers = {
        "Generate": grpc.stream_stream_rpc_method_handler(
            _stream(servicer.generate),
            request_deserializer=pb.GenerateRequest.FromString,
            response_serializer=pb.StepOutput.SerializeToString,
        ),
        "SetPlacement": _unary(servicer.set_placement, pb.Placement),
        "Describe": _unary(servicer.describe, pb.DescribeRequest),
        "Drain": _unary(servicer.drain, pb.DrainRequest),
    }
    _add(server, ROUTER, handlers)


def unary_method(
    channel: grpc.aio.Channel, service: str, method: str, reply: type[Reply]
) -> Callable[..., Awaitable[Reply]]:
    """The client side of one unary method; `reply` is the message class of its answer."""
    made: Callable[..., Awaitable[Reply]] = channel.unary_unary(
        f"/{service}/{method}",
        request_serializer=_serialize,
        response_deserializer=reply.FromString,
    )
    return made


def dispatch_stream(channel: grpc.aio.Channel) -> Any:
    """The client side of Dispatch: call it to open a stream of enveloped frames."""
    return channel.stream_stream(
        f"/{EXPERT_WORKER}/Dispatch", request_serializer=None, response_deserializer=None
    )


def generate_stream(channel: grpc.aio.Channel) -> Any:
    """The client side of Generate: call it to open a stream."""
    return channel.stream_stream(
        f"/{ROUTER}/Generate",
        request_serializer=_serialize,
        response_deserializer=pb.StepOutput.FromString,
    )


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _add(server: grpc.aio.Server, service: str, handlers: dict[str, Any]) -> None:
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _unary(method: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    @functools.wraps(method)
    async def call(message: Any, context: Context) -> Any:
        try:
            return await method(message)
        except OrreryError as error:
            await _abort(context, error)

    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=request.FromString, response_serializer=_serialize
    )


def _stream(method: Callable[[Any, Context], Awaitable[None]]) -> Any:
    @functools.wraps(method)
    async def call(messages: Any, context: Context) -> None:
        try:
            await method(messages, context)
        except OrreryError as error:
            await _abort(context, error)

    return call


async def _abort(context: Context, error: OrreryError) -> None:
    metadata = ((CODE_KEY, str(error.code)),)
    await context.abort(status_of(error.code), str(error), metadata)
