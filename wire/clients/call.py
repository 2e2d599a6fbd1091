"""One unary call with a deadline and typed errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from wire.status import error_of

Reply = TypeVar("Reply")


async def call(method: Callable[..., Awaitable[Reply]], request: object, timeout_s: float) -> Reply:
    """The method's answer.

    Raises:
        OrreryError: the peer's typed error, or what its gRPC status stands for.
    """
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure) from failure
